"""Chunks: parts of a document that a model can be shown, each with its place."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from chat.documents import CHUNK_CHARS, Chunk
from chat.sources import label
from knowledge import html, markdown, plain
from knowledge.blocks import Block, Kind
from knowledge.text import text_of

HEADING_CHARS = 80
"""Of a heading, what a place says."""

PARSERS: Mapping[str, Callable[[str], Iterable[Block]]] = {
    "text/plain": plain.blocks_of,
    "text/markdown": markdown.blocks_of,
    "text/html": html.blocks_of,
}
"""By media type."""

# The best places to break what is too long, the last one within reach: behind a line, a sentence, a word. A sentence
# also ends with the marks of scripts that have no spaces.
_BREAKS = [re.compile(pattern) for pattern in (r"\n+", r"[.!?…]\s+|[。\uff01\uff1f]", r"\s+")]


def chunks_of(data: bytes, media_type: str) -> list[Chunk]:
    """All of the text, in order, in chunks of at most ``CHUNK_CHARS`` characters that do not reach beyond a heading.

    Raises:
        ChatError: ``document_unreadable``: it is no document of this media type, which is one of :data:`PARSERS`.
    """
    return list(_packed(PARSERS[media_type](text_of(data))))


def _packed(blocks: Iterable[Block]) -> Iterator[Chunk]:
    path: list[tuple[int, str]] = []
    number, first = 0, 1
    waiting, only_headings = "", True
    for block in blocks:
        heading = block.kind is Kind.HEADING
        if block.kind is Kind.PARAGRAPH:
            number += 1
        if (heading and not only_headings) or len(waiting) + len(block.text.rstrip()) > CHUNK_CHARS:
            yield from _cut(waiting, _place(path, first))
            waiting, only_headings = "", True
        if heading:
            path = [*(above for above in path if above[0] < block.level), (block.level, block.title)]
            number = 0
        if not waiting or heading:
            first = max(number, 1)
        waiting += block.text
        only_headings = only_headings and (heading or not block.text.strip())
    yield from _cut(waiting, _place(path, first))


def _place(path: Iterable[tuple[int, str]], paragraph: int) -> str:
    headings = " > ".join(filter(None, (label(title, HEADING_CHARS) for _, title in path)))
    return ", ".join(filter(None, (headings, f"paragraph {paragraph}")))


def _cut(text: str, place: str) -> Iterator[Chunk]:
    """The text in as many chunks as it takes. White space at their edges is left out, an indent is not."""
    while text.strip():
        end = len(text) if len(text.rstrip()) <= CHUNK_CHARS else _break(text)
        part, text = text[:end], text[end:]
        if part.strip():
            yield Chunk(place, re.sub(r"\A(?:[^\S\n]*\n)+", "", part).rstrip())


def _break(text: str) -> int:
    """Where to end a chunk of text that is too long for one: in its second half, if there is a place."""
    for pattern in _BREAKS:
        places = [match.end() for match in pattern.finditer(text, CHUNK_CHARS // 2, CHUNK_CHARS)]
        if places:
            return places[-1]
    return CHUNK_CHARS
