"""What the engine needs from outside, as protocols. ``store`` and the models implement them."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from chat.events import Delta, Event, Terminal, Usage
from chat.runs import Run
from chat.sessions import Message, NewSession, Page, Session, Turn

# --- the model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """``messages`` end with the user's. ``prefix`` is the stored part of an answer that is to be continued."""

    messages: Sequence[Turn]
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The model said that it is done. Always the last part of a stream; without it an answer is not complete."""

    reason: str
    usage: Usage | None = None


Part: TypeAlias = Delta | Finished


class ChatModel(Protocol):
    """A language model. Closing the generator closes what it reads from."""

    @property
    def name(self) -> str: ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Part], None]:
        """What each read of the upstream brought, in order.

        Raises:
            ModelError: the upstream refused, broke off, stalled or sent what cannot be read.
        """
        ...

    async def close(self) -> None: ...


# --- the store ------------------------------------------------------------------------------------------------


class OnBusy(StrEnum):
    """What a second message does while its session's run is still going."""

    REJECT = "reject"
    QUEUE = "queue"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key and the digest of the request that it stands for."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """Behind the last message of the branch that is spoken to."""


@dataclass(frozen=True, slots=True)
class Under:
    """Behind this message, or at the root: an edit that branches."""

    parent_id: str | None


@dataclass(frozen=True, slots=True)
class Matching:
    """The turns are the client's whole view: follow the stored tree as far as it agrees, and branch there."""


Place: TypeAlias = Leaf | Under | Matching


@dataclass(frozen=True, slots=True)
class NewRun:
    """A message and the run that answers it; stored together or not at all.

    ``turns`` end with the user's message; those before it are history that the client brings along.
    ``session`` is created if its id is unknown. ``user_id`` is what the client claimed, if it did.
    ``attach_same``: the message of the session's active run, said again, attaches to that run.
    """

    id: str
    session: NewSession
    user_id: str | None
    turns: Sequence[Turn]
    model: str
    place: Place = field(default_factory=Leaf)
    instructions: str | None = None
    on_busy: OnBusy = OnBusy.REJECT
    claim: Claim | None = None
    attach_same: bool = False


@dataclass(frozen=True, slots=True)
class NewRetry:
    """Another answer to the message that ``run_id`` answered."""

    id: str
    run_id: str
    model: str
    on_busy: OnBusy = OnBusy.REJECT
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """``created`` is False where an idempotency key or a repeated message led to a run that exists.

    ``interrupts`` is the run that has to be cancelled for this one to begin.
    """

    run: Run
    created: bool = True
    replayed: bool = False
    interrupts: str | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a run: its terminal event, the whole answer, and the whole log for the run's own storage."""

    terminal: Terminal
    answer: str
    log: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Append:
    """Events for the end of one run's log; ``first_seq`` is the first one's place."""

    run: Run
    first_seq: int
    events: Sequence[Event]
    settlement: Settlement | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit brought to light: runs that are gone or not ours any more, sessions in which others wait."""

    lost: frozenset[str] = frozenset()
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring events of one run; ``first_seq`` is the first one's place.

    ``shown`` is room for those who show the batch to many: what they made of it, by their own key.
    """

    first_seq: int
    events: Sequence[Event]
    shown: dict[object, bytes] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Tail:
    """What was committed by anyone behind a position of the journal: run, seq and event, in commit order.

    ``complete`` is False when part of it has been pruned already: whoever follows must read the runs themselves.
    """

    pos: int
    entries: Sequence[tuple[str, int, Event]]
    complete: bool = True


class Store(Protocol):
    """Durable state. Every method is one transaction.

    Each raises ``StoreUnavailableError`` when it could not be done now (nothing was changed, as far as can be
    known) and ``StoreCorruptError`` when the data is damaged. Runs belong to an owner, this process; another
    process takes them when the owner is dead, and then whatever the old owner writes is refused: its runs come
    back as ``Committed.lost``.
    """

    # runs

    async def start_run(self, new: NewRun) -> Started:
        """Claim the key, create the session, store the messages and the run: survives power loss.

        Raises:
            ChatError: ``idempotency_conflict``, ``run_in_progress``, ``not_found``.
        """
        ...

    async def retry_run(self, new: NewRetry) -> Started:
        """Like :meth:`start_run`, for another answer to a message that exists."""
        ...

    async def commit(self, batch: Sequence[Append]) -> Committed:
        """Append to the logs of many runs in one transaction; one that settles a run survives power loss."""
        ...

    async def run(self, run_id: str) -> Run | None: ...

    async def active_run(self, session_id: str) -> Run | None:
        """The session's running run, else the first that waits."""
        ...

    async def events(self, run_id: str, after: int, limit: int) -> Batch:
        """Committed events behind ``after``, oldest first; an empty batch means there are none now.

        Raises:
            ChatError: ``cursor_expired`` when the log has been folded into the message and ``after`` lies inside.
        """
        ...

    async def instructions(self, run_id: str) -> str | None:
        """The system message that the client gave with the run."""
        ...

    async def request_cancel(self, run_id: str, reason: str) -> None:
        """Leave word for the run's owner, whichever process that is."""
        ...

    # ownership

    async def claim(self) -> Sequence[Run]:
        """Say that this process lives, and take the runs that are anybody's.

        These are the running runs of dead owners and, in sessions where none is running, the first that waits.
        Each has a new owner and epoch. A process that was declared dead meanwhile comes back as a new owner.
        """
        ...

    async def beat(self) -> None:
        """Only say that this process lives. This or :meth:`claim` is due every third of the lease."""
        ...

    async def adopt(self, run_id: str) -> Run | None:
        """Take one waiting run out of its turn, to settle it; None if it does not wait any more."""
        ...

    async def hand_back(self) -> None:
        """Give all running runs of this process away, for another to take at once."""
        ...

    async def cancel_requests(self) -> Sequence[tuple[str, str]]:
        """Run and reason of the stops asked of this process's runs."""
        ...

    # following other processes

    async def changed(self) -> bool:
        """Whether another process has committed since the last call. Cheap."""
        ...

    async def tail(self, after: int) -> Tail: ...

    async def position(self) -> int:
        """The journal's last position."""
        ...

    # sessions

    async def create_session(self, new: NewSession) -> Session:
        """Raises ChatError ``session_exists`` when the id is taken."""
        ...

    async def session(self, session_id: str) -> Session | None: ...

    async def sessions(self, user_id: str | None, limit: int, after: str | None) -> Page[Session]:
        """Latest activity first.

        Raises:
            ChatError: ``invalid_request`` for a cursor that this store did not make.
        """
        ...

    async def update_session(self, session_id: str, changes: Mapping[str, object]) -> Session | None:
        """Set ``title`` or ``metadata`` or both; None if there is no such session."""
        ...

    async def delete_session(self, session_id: str) -> bool:
        """Delete the session with its messages, runs and events; False if there is none."""
        ...

    async def messages(self, session_id: str, limit: int, before: str | None) -> Page[Message]:
        """The latest ``limit`` messages before ``before``, oldest first; ``next`` leads to older ones.

        Raises:
            ChatError: ``invalid_request`` for a ``before`` that is no message of the session.
        """
        ...

    async def history(self, message_id: str, budget: int) -> Sequence[Turn]:
        """The branch that ends with the message, oldest first, cut from the old end to ``budget`` UTF-8 bytes."""
        ...

    # upkeep

    async def sweep(self, retention: float) -> None:
        """Fold the logs of runs that ended ``retention`` seconds ago or more; drop what nobody can ask for."""
        ...

    async def check(self) -> None:
        """Reach the database, or raise."""
        ...

    async def close(self) -> None: ...
