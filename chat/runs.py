"""A run: one durable generation, of an answer or of what a session keeps besides; or an import of documents."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from chat.errors import ChatError
from chat.events import RunCancelled, RunCompleted, RunFailed, RunInterrupted, Terminal
from chat.steps import Call


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def active(self) -> bool:
        """Whether the run has not ended yet."""
        return self in (RunStatus.QUEUED, RunStatus.RUNNING)


class RunKind(StrEnum):
    """What a run is for. All but answers are made beside the conversation: they write no message, nobody waits for
    them, and a session may have one while it answers. An import has a session of its own, which is no conversation.
    """

    ANSWER = "answer"
    SUMMARY = "summary"
    TITLE = "title"
    IMPORT = "import"


STATUS_OF: dict[type[Terminal], RunStatus] = {
    RunCompleted: RunStatus.COMPLETED,
    RunFailed: RunStatus.FAILED,
    RunCancelled: RunStatus.CANCELLED,
    RunInterrupted: RunStatus.INTERRUPTED,
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the store knows it.

    ``message_id`` is the user's message, ``answer_id`` the assistant's, chosen at the start so that a queued
    message can name its parent before that exists. ``last_seq`` and ``terminal`` are set when the run has ended.
    ``owner`` is the process that generates it and ``epoch`` counts the owners it has had. Times are milliseconds
    since 1970, for show: nothing is ordered by them. ``cost`` is in nano-dollars, None where the price of any model
    that was asked is unknown. ``trace`` is what :meth:`chat.tracing.Tracer.carried` made of the run's request.
    ``waiting`` are the calls that wait for somebody's yes. A run that answers nothing has no ``answer_id``, and its
    ``message_id`` is the last message that it reads.
    """

    id: str
    session_id: str
    user_id: str
    message_id: str
    answer_id: str
    status: RunStatus
    model: str
    owner: int | None
    epoch: int
    last_seq: int
    created_at: int
    finished_at: int | None = None
    terminal: Terminal | None = None
    cost: int | None = None
    trace: str | None = None
    waiting: Sequence[Call] = ()
    kind: RunKind = RunKind.ANSWER


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last event of a run that a client has seen: ``{run_id}.{seq}`` on the wire."""

    run_id: str
    seq: int

    def __str__(self) -> str:
        return f"{self.run_id}.{self.seq}"


# 18 digits fit the stores' 64-bit integers; a longer number is an attack, not a cursor.
CURSOR = re.compile(r"([A-Za-z0-9_-]{1,43})\.([0-9]{1,18})")


def parse_cursor(text: str) -> Cursor:
    """Read a cursor from ``Last-Event-ID`` or ``?after=``.

    Raises:
        ChatError: ``invalid_cursor``.
    """
    match = CURSOR.fullmatch(text)
    if match is None:
        raise ChatError("invalid_cursor", "The event id is not one that this service has sent.")
    return Cursor(match[1], int(match[2]))
