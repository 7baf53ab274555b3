"""Everything that a database holds, as lines of JSON: how it moves from SQLite to PostgreSQL, and back.

Each line is an object with one member, whose name is the line's kind: first ``parley``, the header; then those of
:data:`KINDS` in their order, a run's pages of events right behind it; last ``end`` with the number of lines, so that a
file that was cut off is known. The members are the tables' columns. What a process makes for itself is not among them:
positions, owners and the indexes for searches.

The same conversations and documents make the same bytes, whichever database they are in.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from store.journal import PAGE_EVENTS, pages
from store.rows import Rows, Values

FORMAT = 4
"""Of the lines. It grows when an older version could no longer read them; every format up to it is read."""

SINCE: Mapping[int, Mapping[str, str]] = {
    2: {"message": "sources"},
    3: {"session": "collection"},
    4: {"document": "digest"},
}
"""The member that a format has brought to a kind of line. It is null in those of before."""

PAGE_ROWS = 64
"""Rows read or written at once. An answer can have megabytes, and this many of them have to fit into memory."""

TEXT, TEXT_OR_NULL = "text", "text or null"
SMALL, SMALL_OR_NULL = "a number of 32 bits", "a number of 32 bits or null"
NUMBER, NUMBER_OR_NULL = "a number of 64 bits", "a number of 64 bits or null"

NO_EXPORT = "This is no export of Parley."


class Reading(Protocol):
    """What reads: a transaction, or one after the other."""

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Any]:
        """All rows of a statement."""
        ...


class TransferError(Exception):
    """It cannot be done. The message is a sentence for whoever asked."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What one kind of line holds: columns of a table, in the order of ``key``, which is unique.

    ``start`` is below every key. ``given`` are columns whose values are this database's own, as SQL.
    """

    table: str
    key: Sequence[str]
    start: Sequence[str | int]
    columns: Mapping[str, str]
    given: Callable[[Rows], Mapping[str, str]] = lambda _: {}


_JOURNAL_END = "(SELECT coalesce(max(pos), 0) + 1 FROM journal)"

KINDS: Mapping[str, Kind] = {
    "session": Kind(
        "sessions",
        ("touched", "id"),
        (-1, ""),
        {
            "id": TEXT,
            "user_id": TEXT,
            "title": TEXT_OR_NULL,
            "metadata": TEXT,
            "template": TEXT_OR_NULL,
            "variables": TEXT_OR_NULL,
            "collection": TEXT_OR_NULL,
            "leaf_id": TEXT_OR_NULL,
            "message_count": SMALL,
            "created_at": NUMBER,
            "updated_at": NUMBER,
        },
        lambda db: {"touched": db.touch},
    ),
    "message": Kind(
        "messages",
        ("pos",),
        (0,),
        {
            "id": TEXT,
            "session_id": TEXT,
            "parent_id": TEXT_OR_NULL,
            "role": TEXT,
            "content": TEXT,
            "steps": TEXT_OR_NULL,
            "sources": TEXT_OR_NULL,
            "status": TEXT,
            "run_id": TEXT_OR_NULL,
            "created_at": NUMBER,
        },
    ),
    "run": Kind(
        "runs",
        ("pos",),
        (0,),
        {
            "id": TEXT,
            "kind": TEXT,
            "session_id": TEXT,
            "message_id": TEXT,
            "answer_id": TEXT,
            "status": TEXT,
            "model": TEXT,
            "instructions": TEXT_OR_NULL,
            "terms": TEXT_OR_NULL,
            "trace": TEXT_OR_NULL,
            "epoch": SMALL,
            "last_seq": NUMBER,
            "terminal": TEXT_OR_NULL,
            "text": TEXT_OR_NULL,
            "cancel_requested": TEXT_OR_NULL,
            "created_at": NUMBER,
            "finished_at": NUMBER_OR_NULL,
            "folded": SMALL,
        },
        # Without an owner: a run that is going is taken up by the next who looks, as after a crash.
        lambda _: {"journal_from": _JOURNAL_END},
    ),
    "page": Kind(
        "log_pages",
        ("run_id", "first_seq"),
        ("", 0),
        {"run_id": TEXT, "first_seq": NUMBER, "last_seq": NUMBER, "events": TEXT},
    ),
    "claim": Kind(
        "claims",
        ("run_id", "key"),
        ("", ""),
        {"key": TEXT, "fingerprint": TEXT, "run_id": TEXT, "created_at": NUMBER},
    ),
    "approval": Kind(
        "approvals",
        ("run_id", "call_id"),
        ("", ""),
        {"run_id": TEXT, "call_id": TEXT, "approved": SMALL_OR_NULL, "name": TEXT, "arguments": TEXT},
    ),
    "file": Kind(
        "import_files",
        ("run_id", "number"),
        ("", 0),
        {
            "run_id": TEXT,
            "number": SMALL,
            "name": TEXT,
            "title": TEXT,
            "media_type": TEXT,
            "bytes": NUMBER,
            "collection": TEXT,
            "user_id": TEXT_OR_NULL,
            "content": TEXT_OR_NULL,
            "document_id": TEXT_OR_NULL,
            "chunks": SMALL,
            "code": TEXT_OR_NULL,
            "message": TEXT_OR_NULL,
        },
    ),
    "record": Kind(
        "records",
        ("pos",),
        (0,),
        {
            "id": TEXT,
            "kind": TEXT,
            "session_id": TEXT,
            "user_id": TEXT,
            "run_id": TEXT,
            "data": TEXT,
            "created_at": NUMBER,
        },
    ),
    "document": Kind(
        "documents",
        ("pos",),
        (0,),
        {
            "id": TEXT,
            "user_id": TEXT_OR_NULL,
            "collection": TEXT,
            "title": TEXT,
            "media_type": TEXT,
            "bytes": NUMBER,
            "chunks": SMALL,
            "digest": TEXT_OR_NULL,
            "created_at": NUMBER,
        },
    ),
    "chunk": Kind(
        "chunks",
        ("document_id", "number"),
        ("", 0),
        {"document_id": TEXT, "number": SMALL, "place": TEXT, "text": TEXT},
    ),
    "document_claim": Kind(
        "document_claims",
        ("document_id", "key"),
        ("", ""),
        {"key": TEXT, "fingerprint": TEXT, "document_id": TEXT, "created_at": NUMBER},
    ),
    "usage": Kind(
        "usage",
        ("run_id", "model"),
        ("", ""),
        {
            "run_id": TEXT,
            "session_id": TEXT,
            "user_id": TEXT,
            "model": TEXT,
            "day": SMALL,
            "input_tokens": NUMBER,
            "output_tokens": NUMBER,
            "cached_tokens": NUMBER,
            "reasoning_tokens": NUMBER,
            "estimated": SMALL,
            "cost": NUMBER_OR_NULL,
        },
    ),
}


async def exported(db: Rows, version: str) -> AsyncIterator[tuple[str, bytes]]:
    """Every line with its kind. ``version`` is that of this service."""
    yield "parley", line("parley", {"format": FORMAT, "version": version})
    count = 1
    for name, kind in KINDS.items():
        if name != "page":
            async for row in rows_of(db, kind):
                count += 1
                yield name, line(name, row)
                if name == "run" and not row["folded"]:
                    async for page in log_of(db, row):
                        count += 1
                        yield "page", line("page", page)
    yield "end", line("end", {"lines": count + 1})


def line(name: str, members: Mapping[str, Any]) -> bytes:
    return json.dumps({name: members}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def rows_of(
    db: Reading, kind: Kind, *, of: tuple[str, str] | None = None, after: Sequence[str | int] = ()
) -> AsyncIterator[dict[str, Any]]:
    """All rows behind the key, a few at a time; only those in whose column there is this value, if one is given."""
    key, places = ", ".join(kind.key), ", ".join("?" * len(kind.key))
    which = f"({key}) > ({places})" + (f" AND {of[0]} = ?" if of else "")
    sql = f"SELECT {key}, {', '.join(kind.columns)} FROM {kind.table} WHERE {which} ORDER BY {key} LIMIT {PAGE_ROWS}"  # noqa: S608  # nosec B608  # names of ours
    after = after or kind.start
    while found := await db.rows(sql, (*after, of[1]) if of else tuple(after)):
        for row in found:
            yield dict(zip(kind.columns, tuple(row)[len(kind.key) :], strict=True))
        after = tuple(found[-1])[: len(kind.key)]


async def log_of(db: Reading, run: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The pages of the run's log, and what of it is in the journal yet as pages, too."""
    kind, last_seq = KINDS["page"], 0
    async for page in rows_of(db, kind, of=("run_id", run["id"])):
        last_seq = page["last_seq"]
        yield page
    if run["finished_at"] is None:
        [(start,)] = await db.rows("SELECT journal_from FROM runs WHERE id = ?", (run["id"],))
        while found := await db.rows(
            """SELECT pos, seq, name, body FROM journal WHERE pos >= ? AND run_id = ? AND seq > ?
               ORDER BY pos LIMIT ?""",
            (start, run["id"], last_seq, PAGE_EVENTS),
        ):
            events = [(name, body) for _, _, name, body in found]
            for members in pages(found[0][1], events):
                yield dict(zip(kind.columns, (run["id"], *members), strict=True))
            start, last_seq = found[-1][0] + 1, found[-1][1]


async def imported(db: Rows, lines: Iterable[bytes]) -> AsyncIterator[str]:
    """Store what the lines hold, and say the kind of each.

    Raises:
        TransferError: the database is not empty, or the lines are not what they should be. The transaction that it is
            given has to be given up then.
    """
    for kind in KINDS.values():
        if await db.rows(f"SELECT 1 FROM {kind.table} LIMIT 1"):  # noqa: S608  # nosec B608  # a name of ours
            raise TransferError("There is something in the database already. Import into an empty one.")
    for name, rows in _batches(lines):
        kind = KINDS[name]
        given = kind.given(db)
        await db.each(
            f"""INSERT INTO {kind.table} ({", ".join([*kind.columns, *given])})
                VALUES ({", ".join([*("?" * len(kind.columns)), *given.values()])})""",  # noqa: S608  # nosec B608  # names of ours
            rows,
        )
        for _ in rows:
            yield name


def _batches(lines: Iterable[bytes]) -> Iterator[tuple[str, Sequence[tuple[Any, ...]]]]:
    """The rows of neighbouring lines of the same kind."""
    last, batch = "", list[tuple[Any, ...]]()
    for name, row in _members(lines):
        if batch and (name != last or len(batch) == PAGE_ROWS):
            yield last, batch
            batch = []
        last = name
        batch.append(row)
    if batch:
        yield last, batch


def _members(lines: Iterable[bytes]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The rows of all lines between the header and the end."""
    count, ended, written = 0, False, FORMAT
    for count, line in enumerate(lines, 1):
        if ended:
            raise TransferError(f"Line {count} stands behind the end.")
        if not line.endswith(b"\n"):
            break
        name, members = _read(line, count)
        if count == 1:
            written = _format_of(name, members)
        elif name == "end":
            ended = True
            if members != {"lines": count}:
                raise TransferError(f"Lines are missing: there are {count}, and were {members.get('lines')}.")
        else:
            yield name, _checked(name, _filled(name, members, written), count)
    if not ended:
        raise TransferError(f"The file is cut off in or behind line {count}." if count else "The file is empty.")


def _read(line: bytes, number: int) -> tuple[str, dict[str, Any]]:
    with suppress(ValueError, AttributeError, RecursionError):
        [(name, members)] = json.loads(line).items()
        if isinstance(members, dict):
            return name, members
    if number == 1:
        raise TransferError(NO_EXPORT)
    raise TransferError(f"Line {number} is no object with a member that is one.")


def _format_of(name: str, members: Mapping[str, Any]) -> int:
    written = members.get("format")
    if name != "parley" or not isinstance(written, int) or written < 1:
        raise TransferError(NO_EXPORT)
    if written > FORMAT:
        raise TransferError(
            f"This was exported by a later version of Parley, {members.get('version')}, in format {written}. "
            f"This one reads formats up to {FORMAT}: import it with that version."
        )
    return written


def _filled(name: str, members: Mapping[str, Any], written: int) -> Mapping[str, Any]:
    """The members as this format has them."""
    later = [kinds[name] for number, kinds in SINCE.items() if number > written and name in kinds]
    return {**dict.fromkeys(later), **members} if later else members


def _checked(name: str, members: Mapping[str, Any], number: int) -> tuple[Any, ...]:
    kind = KINDS.get(name)
    if kind is None:
        raise TransferError(f"Line {number}: there is no kind named {name}.")
    if members.keys() != kind.columns.keys():
        wrong = ", ".join(sorted(members.keys() ^ kind.columns.keys()))
        raise TransferError(f"Line {number}: of a {name} these members are missing or unknown: {wrong}.")
    for column, wanted in kind.columns.items():
        if not _is(members[column], wanted):
            raise TransferError(f"Line {number}: {column} of this {name} has to be {wanted}.")
    return tuple(members[column] for column in kind.columns)


def _is(value: object, wanted: str) -> bool:
    if value is None:
        return wanted.endswith("null")
    if wanted.startswith(TEXT):
        return isinstance(value, str) and (value.isascii() or _is_unicode(value))
    bits = 31 if wanted.startswith(SMALL) else 63
    return isinstance(value, int) and not isinstance(value, bool) and -(2**bits) <= value < 2**bits


def _is_unicode(text: str) -> bool:
    """JSON can hold halves of characters, and no database can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def told(counts: Counter[str]) -> str:
    """How much there was, for people."""
    named = [
        f"{counts[name]:,} {name.replace('_', ' ')}{'' if counts[name] == 1 or name == 'usage' else 's'}"
        for name in KINDS
    ]
    return ", ".join(named)
