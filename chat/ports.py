"""What the engine needs from outside, as protocols. ``store`` and the models implement them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from chat.commands import Claim, NewRetry, NewRun, NewSideRun, Started
from chat.commits import Append, Batch, Committed, Recollection, Tail
from chat.documents import Documents
from chat.embeddings import Embeddings
from chat.events import Delta, ModelSelected, Source, ToolDelta, ToolStarted, Usage
from chat.imports import ImportStore, NewImport
from chat.keys import Key
from chat.records import Record
from chat.runs import Run, RunKind
from chat.search import Hit, Search
from chat.sessions import Branch, Message, NewSession, Page, Session, Summary, Turn
from chat.steps import Step
from chat.terms import Terms, ToolSpec
from chat.usage import UsageQuery, UsageSum

PULSE = 0.2
"""Of a lease: the time between two signs of life of a process, and between two looks at those of the others."""

SILENCE = 0.75
"""Of a lease: the silence after which a process is dead. With one pulse more its runs are taken within the lease."""

# --- the model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finished:
    """The model said that it is done. Always the last part of a stream; without it an answer is not complete."""

    reason: str
    usage: Usage | None = None


Part: TypeAlias = Delta | ToolStarted | ToolDelta | Source | ModelSelected | Finished

Hear: TypeAlias = Callable[[Sequence[Part]], bool]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """``messages`` end with the user's. ``steps`` are those that the answer has behind it, ``prefix`` is the stored
    part of the one that is to be continued.

    ``model`` is the one that is asked for; empty where whoever is asked has only one. ``speaker`` is another that the
    run's log says has spoken last. ``taken`` are the ids of all calls that the messages and the log tell of, those that
    were cut off included. ``options`` are the client's, for the upstream. ``kind`` is what the answer is for. ``hear``
    is a shorter way for what is read behind the first: while somebody waits for the stream's next read, parts may be
    given there instead; False if they are to come out of the stream.
    """

    messages: Sequence[Turn]
    prefix: str = ""
    steps: Sequence[Step] = ()
    tools: Sequence[ToolSpec] = ()
    model: str = ""
    speaker: str = ""
    taken: Collection[str] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    kind: RunKind = RunKind.ANSWER
    hear: Hear | None = field(default=None, compare=False, repr=False)


class Reads(Protocol):
    """What each read of the upstream brought, as it comes: an async generator, or what looks like one."""

    def __aiter__(self) -> AsyncIterator[Sequence[Part]]: ...

    def __anext__(self) -> Awaitable[Sequence[Part]]: ...

    def aclose(self) -> Awaitable[None]: ...


class ChatModel(Protocol):
    """A language model. Closing the stream closes what it reads from."""

    @property
    def name(self) -> str: ...

    def stream(self, request: ModelRequest) -> Reads:
        """What each read of the upstream brought, in order.

        Raises:
            ModelError: the upstream refused, broke off, stalled or sent what cannot be read.
        """
        ...

    async def close(self) -> None: ...


# --- the store ------------------------------------------------------------------------------------------------


class Store(Documents, Embeddings, ImportStore, Protocol):
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

    async def claimed(self, claim: Claim) -> Started | None:
        """The run that this key has started; None if it has not yet.

        Raises:
            ChatError: ``idempotency_conflict``.
        """
        ...

    async def retry_run(self, new: NewRetry) -> Started:
        """Like :meth:`start_run`, for another answer to a message that exists."""
        ...

    async def start_import(self, new: NewImport) -> Started:
        """Claim the key, store the files and the run that imports them: survives power loss.

        Raises:
            ChatError: ``idempotency_conflict``.
        """
        ...

    async def start_side_run(self, new: NewSideRun) -> Run | None:
        """Begin a run beside the conversation; None if somebody else was faster, or the session is gone."""
        ...

    async def commit(self, batch: Sequence[Append]) -> Committed:
        """Append to the logs of many runs in one transaction.

        With a call's ``tool.approval``, which comes together with its ``tool.called``, it can be decided about.
        It survives power loss if it settles a run, or if one of them is to be durable.
        """
        ...

    async def run(self, run_id: str) -> Run | None: ...

    async def active_run(self, session_id: str, *, beside: bool = False) -> Run | None:
        """The run that answers in the session, else the first that waits; with ``beside``, else any that is going."""
        ...

    async def events(self, run_id: str, after: int, limit: int) -> Batch:
        """Committed events behind ``after``, oldest first; an empty batch means there are none now.

        Raises:
            ChatError: ``cursor_expired`` when the log has been folded into the message and ``after`` lies inside.
        """
        ...

    async def terms(self, run_id: str) -> Terms:
        """What the client said about the run; nothing, if there is no such run."""
        ...

    async def run_of_key(self, key: str) -> str | None:
        """The id of the run that this idempotency key stands for."""
        ...

    async def request_cancel(self, run_id: str, reason: str) -> None:
        """Leave word for the run's owner, whichever process that is."""
        ...

    # ownership

    @property
    def owner(self) -> int:
        """This process as an owner of runs. What has another owner is not this process's any more."""
        ...

    async def claim(self) -> Sequence[Run]:
        """Say that this process lives, and take the runs that are anybody's.

        These are the running runs of dead owners and, in sessions where none is running, the first that waits.
        Each has a new owner and epoch. A process that was declared dead meanwhile comes back as a new owner.
        """
        ...

    async def beat(self) -> None:
        """Only say that this process lives. This or :meth:`claim` is due at every :data:`PULSE`."""
        ...

    async def abandoned(self) -> bool:
        """Whether there are runs for :meth:`claim` to take that somebody has given away."""
        ...

    async def adopt(self, run_id: str) -> Run | None:
        """Take one waiting run out of its turn, to settle it; None if it does not wait any more."""
        ...

    async def hand_back(self) -> None:
        """Give all running runs of this process away; others hear of it, and one of them takes them at once."""
        ...

    async def release(self, run_id: str) -> None:
        """Give one running run of this process away, which will not write to it any more; others hear of it."""
        ...

    async def cancel_requests(self) -> Sequence[tuple[str, str]]:
        """Run and reason of the stops asked of this process's runs."""
        ...

    # following other processes

    async def changed(self) -> bool:
        """Whether another process has committed since the last call. Cheap."""
        ...

    async def doorbell(self, within: float) -> None:
        """Return when another process may have committed, at the latest after so many seconds."""
        ...

    async def tail(self, after: int, run_ids: Collection[str]) -> Tail:
        """What these runs have said behind a position of the journal."""
        ...

    async def position(self) -> int:
        """The journal's last position."""
        ...

    # sessions

    async def create_session(self, new: NewSession) -> Session:
        """Raises ChatError ``session_exists`` when the id is taken."""
        ...

    async def session(self, session_id: str) -> Session | None: ...

    async def sessions(
        self, user_id: str | None, limit: int, after: str | None, *, beside: bool = False
    ) -> Page[Session]:
        """Latest activity first; with ``beside`` also those that are no conversations, but an import's.

        Raises:
            ChatError: ``invalid_request`` for a cursor that this store did not make.
        """
        ...

    async def update_session(self, session_id: str, changes: Mapping[str, object]) -> Session | None:
        """Set what is named of ``title``, ``metadata``, ``collection``, and ``template`` with ``variables``.

        None if there is no such session.
        """
        ...

    async def delete_session(self, session_id: str, *, idle: float | None = None) -> bool:
        """Delete the session with its messages, runs and events; False if there is none.

        With ``idle``, also if something has happened in it within so many seconds: then it stays.
        """
        ...

    async def idle_sessions(self, seconds: float, limit: int) -> Sequence[str]:
        """Sessions in which nothing has happened for so long, the oldest first; runs that wait for a yes do not count.

        By the clock: another order says which came first, and none how long ago.
        """
        ...

    async def messages(self, session_id: str, limit: int, before: str | None) -> Page[Message]:
        """The latest ``limit`` messages before ``before``, oldest first; ``next`` leads to older ones.

        Raises:
            ChatError: ``invalid_request`` for a ``before`` that is no message of the session.
        """
        ...

    async def message(self, message_id: str) -> Message | None: ...

    async def history(self, message_id: str, budget: int) -> Sequence[Turn]:
        """The branch that ends with the message, oldest first, cut from the old end to ``budget`` UTF-8 bytes.

        The steps of each answer are cut to their share of it first, by :func:`chat.room.earlier`; those of the last
        message, which is to be answered, have as much room as a run's own.
        """
        ...

    async def turn(self, message_id: str) -> Turn | None:
        """What this message says, whole."""
        ...

    async def search(self, wanted: Search) -> Page[Hit]:
        """The messages that match best first; what comes while somebody turns the pages is not on them.

        Raises:
            ChatError: ``invalid_request`` for a cursor that this store did not make.
        """
        ...

    # memory

    async def branch(self, message_id: str, budget: int) -> Branch:
        """The branch that ends with the message: its latest summary, and the history behind that, as :meth:`history`.

        A summary belongs to the branches that go through the last message that it tells of.
        """
        ...

    async def summary(self, message_id: str) -> Summary | None:
        """The latest summary of the branch that ends with the message."""
        ...

    async def recollection(self, answer: Run, kinds: Collection[RunKind], reach: int) -> Recollection | None:
        """The memory of the answer's session, as far as these kinds are concerned; None if the session is gone.

        ``reach``: how many bytes of a branch that has no summary yet are looked at, from its end.
        """
        ...

    # approvals

    async def decision(self, run_id: str, call_id: str) -> bool | None:
        """What was decided about a call that waits; None if nothing yet."""
        ...

    async def decisions(self) -> Sequence[tuple[str, str, bool]]:
        """Run, call and decision of what was decided about this process's runs."""
        ...

    async def decide(self, run_id: str, call_id: str, *, approved: bool) -> None:
        """Decide about a call that waits: survives power loss. To say the same again changes nothing.

        Raises:
            ChatError: ``not_found``: no call of that id waits in the run; ``already_decided``: otherwise, or the run
                has ended.
        """
        ...

    # records

    async def save_record(self, record: Record) -> None:
        """Write it down, at the store's own time: survives power loss."""
        ...

    async def records(
        self, kind: str | None, session_id: str | None, user_id: str | None, limit: int, after: str | None
    ) -> Page[Record]:
        """The latest first.

        Raises:
            ChatError: ``invalid_request`` for a cursor that this store did not make.
        """
        ...

    # usage

    async def usage(self, query: UsageQuery) -> Page[UsageSum]:
        """Sums over the runs that have ended, those of deleted sessions included: what was spent was spent."""
        ...

    # users

    async def knows_user(self, user_id: str) -> bool:
        """Whether anything is stored that is this user's."""
        ...

    async def forget_user(self, user_id: str) -> bool:
        """Delete some of the user's records, and take the name off some of the usage; False if there was nothing left.

        To be repeated until then, when the user's sessions are gone.
        """
        ...

    def export_user(self, user_id: str, version: str) -> AsyncIterator[Sequence[bytes]]:
        """All that is stored of the user, as lines of JSON, some at a time. ``version`` is the service's.

        Each time is a transaction of its own. What happens meanwhile is in it or not.
        """
        ...

    # who is let in

    async def keys(self) -> Sequence[Key]: ...

    async def secret(self, name: str) -> str:
        """What all processes sign with, for one purpose: 256 random bits, made when they are first asked for."""
        ...

    # upkeep

    async def sweep(self, retention: float) -> None:
        """Fold the logs of runs that ended ``retention`` seconds ago or more; drop what nobody can ask for.

        Also whatever a commit does not have to wait for, such as an index, or what is left of what was deleted.
        """
        ...

    async def check(self) -> None:
        """Reach the database, or raise."""
        ...

    async def close(self) -> None: ...
