"""What searches have in common, whatever the index: whose messages, in which pages, and how much of each is shown."""

import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from typing import Any, TypeAlias

from chat.errors import ChatError
from chat.search import Hit, Search, is_searchable
from chat.sessions import Page
from store.rows import Rows

RANKED = 10_000
"""Matches that are ranked, the newest of them: all that a word like "the" finds would keep a reader for seconds."""

PREFIX_BYTES = 3
"""The shortest beginning of a word, in UTF-8: with a shorter one, half of the index would be read. A Chinese character
is as long."""

SNIPPET_WORDS = 24
"""Words of a snippet, about two lines."""

SNIPPET_CHARS = 320
"""The same in characters, for text that has few words or very long ones."""

INDEX_CHARS = 65_536
"""Text that one transaction adds to the index, and one message more: some milliseconds for which commits wait."""

INDEX_MESSAGES = 200
"""Messages likewise: they may be empty."""

Rank: TypeAlias = Callable[[Rows, Search, int], Coroutine[Any, Any, list[int]]]
"""The positions of the messages that match, the best first, none above the given one."""

Show: TypeAlias = Callable[[Rows, Search, Sequence[int]], Coroutine[Any, Any, list[Hit]]]
"""What is shown of the messages at these positions."""

_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,6})")


async def search(db: Rows, wanted: Search, rank: Rank, show: Show) -> Page[Hit]:
    """The best first. Later pages have the order of the first one, without what has come since then."""
    newest, last, passed = await _place(db, wanted.after)
    narrowed = await _narrowed(db, wanted)
    if narrowed is None:
        return Page([])
    ranked = await rank(db, narrowed, newest)
    start = ranked.index(last) + 1 if last in ranked else passed  # not there any more: deleted
    page = ranked[start : start + wanted.limit]
    end = start + len(page)
    hits = await show(db, narrowed, page) if page else []
    return Page(hits, f"{newest}-{page[-1]}-{end}" if end < len(ranked) else None)


async def _place(db: Rows, after: str | None) -> tuple[int, int, int]:
    """The newest position that counts, the last one that was shown, and how many were."""
    if after is None:
        [(newest,)] = await db.rows("SELECT coalesce(max(pos), 0) FROM messages")
        return newest, 0, 0
    match = _CURSOR.fullmatch(after)
    if match is None or not after.isascii():
        raise ChatError("invalid_request", "after is not a cursor of this search.")
    return int(match[1]), int(match[2]), int(match[3])


async def _narrowed(db: Rows, wanted: Search) -> Search | None:
    """The search within the session's user, for whom there is an index; None if nobody can have said it."""
    if wanted.session_id is None:
        return wanted
    found = await db.rows("SELECT user_id FROM sessions WHERE id = ?", (wanted.session_id,))
    if not found or wanted.user_id not in (None, found[0][0]):
        return None
    return replace(wanted, user_id=found[0][0])


def may_be_a_beginning(word: str) -> bool:
    parts = ["".join(part) for searchable, part in groupby(word, is_searchable) if searchable]
    return len(parts[-1].encode()) >= PREFIX_BYTES


def next_ones(waiting: Sequence[tuple[int, int]], chars: int) -> list[int]:
    """The positions that one transaction adds to the index, of those that wait with their lengths."""
    sizes = accumulate(length for _, length in waiting)
    return [pos for (pos, length), size in zip(waiting, sizes, strict=True) if size - length < chars]


def clipped(text: str, matches: Sequence[tuple[int, int]]) -> tuple[str, Sequence[tuple[int, int]]]:
    """At most so much of the text around its first match, and where the matches are in that."""
    begin = max(0, min(matches[0][0] - SNIPPET_CHARS // 4, len(text) - SNIPPET_CHARS)) if matches else 0
    end = begin + SNIPPET_CHARS
    before, after = "…" if begin else "", "…" if end < len(text) else ""
    shift = len(before) - begin
    inside = [(start + shift, min(stop, end) + shift) for start, stop in matches if start < end]
    return f"{before}{text[begin:end]}{after}", inside
