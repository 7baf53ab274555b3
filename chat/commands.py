"""What starts a run, and what comes of that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from chat.runs import Run, RunKind
from chat.sessions import NewSession, Turn
from chat.terms import NO_TERMS, Terms


class OnBusy(StrEnum):
    """What a second message does while its session's run is still going."""

    REJECT = "reject"
    QUEUE = "queue"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key and the digest of the request that it stands for.

    ``lasting``: also a run that came to no good end is the answer to a request that is sent again. A client that chose
    the key has asked for that; one that never heard of it may only want another try.
    """

    key: str
    fingerprint: str
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class Leaf:
    """Behind the last message of the branch that is spoken to."""


@dataclass(frozen=True, slots=True)
class Under:
    """Behind this message, or at the root: an edit that branches."""

    parent_id: str | None


@dataclass(frozen=True, slots=True)
class Matching:
    """The turns are the client's whole view: follow the stored tree as far as it agrees, and branch there.

    A view whose first turn has the id of a stored message begins there. An assistant's turn with the id of an answer
    agrees also if the client has only the beginning of that: it may have been cut off.
    """


@dataclass(frozen=True, slots=True)
class Answering:
    """Behind this answer, of which the first turn is the same with results for its calls.

    Where others are stored already, the turn becomes a copy beside it, and a branch of its own.
    """

    answer_id: str


Place: TypeAlias = Leaf | Under | Matching | Answering


@dataclass(frozen=True, slots=True)
class NewRun:
    """A message and the run that answers it; stored together or not at all.

    ``turns`` end with what is to be answered: the user's message, or an answer to whose calls the client brings the
    results. Those before it are history that the client brings along.
    ``session`` is created if its id is unknown. ``user_id`` is what the client claimed, if it did.
    ``attach_same``: the message of the session's active run, said again, attaches to that run. ``trace`` is kept for
    whoever generates the run, see :meth:`chat.tracing.Tracer.carried`.
    """

    id: str
    session: NewSession
    user_id: str | None
    turns: Sequence[Turn]
    model: str
    place: Place = field(default_factory=Leaf)
    terms: Terms = NO_TERMS
    on_busy: OnBusy = OnBusy.REJECT
    claim: Claim | None = None
    trace: str | None = None
    attach_same: bool = False


@dataclass(frozen=True, slots=True)
class NewRetry:
    """Another answer to the message that ``run_id`` answered; ``attach_same`` as in :class:`NewRun`."""

    id: str
    run_id: str
    model: str
    on_busy: OnBusy = OnBusy.REJECT
    claim: Claim | None = None
    trace: str | None = None
    attach_same: bool = False


@dataclass(frozen=True, slots=True)
class NewSideRun:
    """A run beside the conversation that reads the branch which ends with ``message_id``.

    ``behind`` is the session's latest run of this kind, as far as it is known: where there is a later one by now,
    somebody else was faster, and this one is not started.
    """

    id: str
    kind: RunKind
    session_id: str
    message_id: str
    model: str
    behind: str | None


@dataclass(frozen=True, slots=True)
class Started:
    """``created`` is False where an idempotency key or a repeated message led to a run that exists.

    ``interrupts`` is the run that has to be cancelled for this one to begin.
    """

    run: Run
    created: bool = True
    replayed: bool = False
    interrupts: str | None = None
