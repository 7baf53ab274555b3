"""One transaction of PostgreSQL, as the SQL files are given it."""

import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import asyncpg

from store.rows import Entry, Values

BELL = "parley"
"""The channel on which a process says that it has committed something that others may wait for."""

_MARK = "\uffff"
"""Unicode promises that this will never be a character."""

_JOURNAL = 0x7061726C6579
"""The advisory lock of those who append to the journal: "parley". Names are hashed to other numbers."""

# Text is left alone, and so is a cast; what remains is a value's place.
_PLACES = re.compile(r"'(?:[^']|'')*'|::|:(\w+)|\?")

_ENTER = """
    WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock($1), pg_notify($2, $3))
    INSERT INTO journal (run_id, seq, name, body)
    SELECT run_id, seq, name, body
    FROM turn, unnest($4::text[], $5::bigint[], $6::text[], $7::text[])
         WITH ORDINALITY AS entries (run_id, seq, name, body, place)
    ORDER BY place
"""

# A commit by itself. Every value is looked at again when the turn has come: an owner's row that was deleted or whose
# fence was moved meanwhile is not found, whatever the statement's snapshot says. Who moves the fence, which is part of
# a key, waits for who holds on to the row.
_APPEND = """
    WITH turn AS MATERIALIZED (
        SELECT pg_advisory_xact_lock($1), pg_notify($2, $3), set_config('synchronous_commit', $4, TRUE)),
    alive AS MATERIALIZED (
        SELECT owners.id FROM turn, owners WHERE owners.id = $5 AND owners.fence = $6 FOR KEY SHARE OF owners),
    entered AS (
        INSERT INTO journal (run_id, seq, name, body)
        SELECT run_id, seq, name, body
        FROM alive, unnest($7::text[], $8::bigint[], $9::text[], $10::text[])
             WITH ORDINALITY AS entries (run_id, seq, name, body, place)
        ORDER BY place)
    SELECT id FROM alive
"""


class PostgresRows:
    """:class:`store.rows.Rows`. ``name`` is that of the process, by which it knows its own rings of the bell."""

    __slots__ = ("_connection", "_name")

    touch = "nextval('touches')"
    shared = "FOR KEY SHARE"

    def __init__(self, connection: "asyncpg.pool.PoolConnectionProxy[Any]", name: str) -> None:
        self._connection = connection
        self._name = name

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Any]:
        statement, names = numbered(sql)
        given = [values[name] for name in names] if isinstance(values, Mapping) else values
        found: list[Any] = await self._connection.fetch(statement, *given)
        return found

    async def each(self, sql: str, values: Sequence[Sequence[Any]]) -> None:
        if values:
            await self._connection.executemany(numbered(sql)[0], values)

    async def many(self, sql: str, values: Sequence[Sequence[Any]]) -> Sequence[Any]:
        found: list[Any] = await self._connection.fetchmany(numbered(sql)[0], values) if values else []
        return found

    async def enter(self, entries: Sequence[Entry]) -> None:
        """Positions are given out when nobody else can commit any: who reads on by them misses none."""
        if entries:
            await self._connection.execute(_ENTER, _JOURNAL, BELL, self._name, *_columns(entries))

    async def append(self, owner: int, fence: int, entries: Sequence[Entry], level: str) -> bool:
        """The same for a commit that is this one statement; False if the owner is dead or its fence is another.

        ``level`` is that of ``synchronous_commit``.
        """
        columns = _columns(entries)
        alive = await self._connection.fetch(_APPEND, _JOURNAL, BELL, self._name, level, owner, fence, *columns)
        return bool(alive)

    async def lock_journal(self) -> None:
        """Wait until nobody has appended and not committed yet."""
        await self._connection.execute("SELECT pg_advisory_xact_lock($1)", _JOURNAL)

    async def lock(self, *names: str) -> None:
        if names:  # always in the same order: two who need several never wait for each other
            await self._connection.execute(
                """SELECT pg_advisory_xact_lock(lock) FROM (
                       SELECT DISTINCT hashtextextended(name, 0) AS lock FROM unnest($1::text[]) AS name ORDER BY 1
                   ) AS locks""",
                list(map(hidden, names)),
            )

    async def ring(self) -> None:
        """Let the other processes look again, when this is committed."""
        await self._connection.execute("SELECT pg_notify($1, $2)", BELL, self._name)

    async def script(self, sql: str) -> None:
        """Many statements, without values."""
        await self._connection.execute(sql)

    def size(self, text: str) -> str:
        return f"CAST(octet_length({text}) AS BIGINT)"

    def calls(self, conditions: str) -> str:
        return f"""(SELECT CAST(coalesce(json_agg(json_build_array(call_id, name, arguments) ORDER BY call_id), '[]')
                                AS TEXT) FROM approvals WHERE {conditions})"""  # noqa: S608  # nosec B608  # no value

    def listed(self, name: str) -> str:
        return f"SELECT json_array_elements_text(CAST({name} AS JSON))"

    def numbers(self, name: str) -> str:
        return f"SELECT CAST(json_array_elements_text(CAST({name} AS JSON)) AS BIGINT)"


def _columns(entries: Sequence[Entry]) -> Sequence[Sequence[object]]:
    runs, seqs, names, bodies = zip(*entries, strict=True)
    return runs, seqs, names, tuple(map(hidden, bodies))  # what is in a list goes past the connection's own coding


def hidden(text: str) -> str:
    """The text without NUL, which no text of PostgreSQL can hold: two characters stand for it, of which one is none."""
    if "\0" in text or _MARK in text:
        return text.replace(_MARK, f"{_MARK}1").replace("\0", f"{_MARK}0")
    return text


def bits(packed: bytes) -> bytes:
    """A value of BIT VARYING as it goes to the server: its length in bits, and eight of them a byte."""
    return struct.pack(">i", len(packed) * 8) + packed


def packed(sent: bytes) -> bytes:
    """The reverse of :func:`bits`."""
    return bytes(sent[4:])


def shown(text: str) -> str:
    """The reverse of :func:`hidden`."""
    if _MARK in text:
        return text.replace(f"{_MARK}0", "\0").replace(f"{_MARK}1", _MARK)
    return text


@lru_cache(maxsize=512)
def numbered(sql: str) -> tuple[str, Sequence[str]]:
    """The statement as PostgreSQL has it, and the names of its values in order."""
    names: list[str] = []
    places = 0

    def number(match: re.Match[str]) -> str:
        nonlocal places
        if match[0] == "?":
            places += 1
            return f"${places}"
        if match[1] is None:
            return match[0]
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return _PLACES.sub(number, sql), names
