"""What every SQL file here needs, whichever database it speaks to."""

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from chat.errors import ChatError

T = TypeVar("T")

Values: TypeAlias = Mapping[str, Any] | Sequence[Any]

Entry: TypeAlias = tuple[str, int, str, str]
"""A journal entry: run, seq, and the event's name and body."""


class Rows(Protocol):
    """One transaction, and the little in which the databases differ.

    Statements have ``?`` or ``:name`` for their values. What is awaited in SQLite is done when it comes back: its
    functions run in the connection's thread and never wait.
    """

    touch: str
    """SQL of a number above all that a session was touched with."""

    shared: str
    """What a SELECT ends with whose rows must stay until the end of the transaction."""

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Any]:
        """All rows of a statement."""
        ...

    async def each(self, sql: str, values: Sequence[Sequence[Any]]) -> None:
        """Do the same with many values, in one trip."""
        ...

    async def many(self, sql: str, values: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """The rows that all of them bring."""
        ...

    async def enter(self, entries: Sequence[Entry]) -> None:
        """Add to the journal, behind whatever is committed: nothing of smaller positions will be seen later."""
        ...

    async def lock(self, *names: str) -> None:
        """Be the only transaction with any of these names until it ends."""
        ...

    async def ring(self) -> None:
        """Have the other processes look again, when this is committed; with :meth:`enter` they do in any case."""
        ...

    def size(self, text: str) -> str:
        """SQL of a text's length in UTF-8."""
        ...

    def calls(self, conditions: str) -> str:
        """SQL of the JSON list of the approvals' calls for which the conditions hold: id, name and arguments."""
        ...

    def listed(self, name: str) -> str:
        """SQL of the rows that a value has, a JSON list of texts."""
        ...

    def numbers(self, name: str) -> str:
        """The same of a JSON list of whole numbers."""
        ...


Work: TypeAlias = Callable[[Rows], Coroutine[Any, Any, T]]
"""What is done inside one transaction."""


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def page_below(after: str | None) -> int:
    """The position that a page of a list lies below, latest first: that of its cursor, or one above all.

    Raises:
        ChatError: ``invalid_request`` for a cursor that no list has made.
    """
    if after is None:
        return 2**62
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise ChatError("invalid_request", "after is not a cursor of this list.")
    return int(after)
