"""The outline of a PDF: its bookmarks name the headings, and say where they stand."""

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pypdf import PdfReader

from knowledge.blocks import Block, Kind
from knowledge.layout import HEADING_CHARS, LEVELS, Line, Paragraph, cleaned

NUMBER_CHARS = 12
"""Of a heading's number, which the outline may leave out: ``Chapter 12``, ``3.2.1``."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """``page`` counts from 1; ``top`` is how high on it, if that is known. ``letters`` are those of its title."""

    page: int
    title: str
    letters: str
    level: int
    top: float | None


def bookmarks_of(reader: PdfReader) -> list[Bookmark]:
    """In the order of the pages. Raises whatever the library raises of an outline that is damaged."""
    return sorted(_items(reader, reader.outline, 1), key=lambda bookmark: bookmark.page)


def _items(reader: PdfReader, items: Sequence[Any], level: int) -> Iterator[Bookmark]:
    for item in items:
        if isinstance(item, list):
            yield from _items(reader, item, level + 1)
            continue
        page = reader.get_destination_page_number(item)
        title = " ".join(cleaned(str(item.title or "")).split())[:HEADING_CHARS]
        letters = _letters(title)
        if page is not None and page >= 0 and letters:
            top = item.get("/Top")
            known = isinstance(top, int | float) and math.isfinite(top)
            yield Bookmark(page + 1, title, letters, min(level, LEVELS), float(top) if known else None)


def named(bookmarks: Sequence[Bookmark], lines: Sequence[Line]) -> frozenset[int]:
    """Which of the lines are headings that the outline names, counted from 0."""
    by_page: dict[int, list[Bookmark]] = defaultdict(list)
    for bookmark in bookmarks:
        by_page[bookmark.page].append(bookmark)
    return frozenset(
        place
        for place, line in enumerate(lines)
        if line.page in by_page and _is_named(_letters(line.text), by_page[line.page])
    )


def _is_named(letters: str, bookmarks: Sequence[Bookmark]) -> bool:
    return any(_says(letters, bookmark) for bookmark in bookmarks)


def under(bookmarks: Sequence[Bookmark], paragraphs: Sequence[Paragraph]) -> Iterator[Block]:
    """The paragraphs, under the headings that the outline names."""
    letters = [_letters(paragraph.text) for paragraph in paragraphs]
    said: dict[int, Bookmark] = {}
    above: dict[int, list[Bookmark]] = defaultdict(list)
    reached = 0
    for bookmark in bookmarks:
        start = max(reached, bisect_left(paragraphs, bookmark.page, key=lambda each: each.page))
        end = bisect_right(paragraphs, bookmark.page, key=lambda each: each.page)
        heading = next((place for place in range(start, end) if _says(letters[place], bookmark)), None)
        if heading is None:  # in other words, or as an image
            reached = next((place for place in range(start, end) if _is_above(bookmark, paragraphs[place])), end)
            above[reached].append(bookmark)
        else:
            said[heading] = bookmark
            reached = heading + 1
    for place, paragraph in enumerate(paragraphs):
        for bookmark in above[place]:
            yield Block(Kind.HEADING, "", bookmark.level, bookmark.title, bookmark.page)
        if place in said:
            yield Block(Kind.HEADING, f"{paragraph.text}\n\n", said[place].level, said[place].title, paragraph.page)
        else:
            yield Block(Kind.PARAGRAPH, f"{paragraph.text}\n\n", page=paragraph.page)


def _says(letters: str, bookmark: Bookmark) -> bool:
    return letters.endswith(bookmark.letters) and len(letters) <= len(bookmark.letters) + NUMBER_CHARS


def _letters(text: str) -> str:
    """What headings are compared by. None of what is too long for one."""
    if len(text) > 2 * HEADING_CHARS:
        return ""
    return "".join(character for character in text.casefold() if character.isalnum())


def _is_above(bookmark: Bookmark, paragraph: Paragraph) -> bool:
    return bookmark.top is None or paragraph.y <= bookmark.top
