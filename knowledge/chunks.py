"""Chunks: parts of a document that a model can be shown, each with its place."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from chat.documents import CHUNK_CHARS, Chunk
from chat.errors import ChatError
from chat.sources import label
from knowledge import html, markdown, plain
from knowledge.blocks import Block, Kind
from knowledge.text import text_of

HEADING_CHARS = 80
"""Of a heading, what a place says."""

MAX_CHUNKS = 20_000
"""Of a document: 32 million characters at most. A book of a thousand pages makes two thousand."""


TEXTS: Mapping[str, Callable[[str], Iterable[Block]]] = {
    "text/plain": plain.blocks_of,
    "text/markdown": markdown.blocks_of,
    "text/html": html.blocks_of,
}
"""By media type."""

PDF = "application/pdf"

MEDIA_TYPES = (*TEXTS, PDF)

Parser = Callable[[bytes], Iterable[Block]]
"""Raises ChatError with a code that begins with ``document_``."""

# The best places to break what is too long, the last one within reach: behind a line, a sentence, a word. A sentence
# also ends with the marks of scripts that have no spaces.
_BREAKS = [re.compile(pattern) for pattern in (r"\n+", r"[.!?…]\s+|[。\uff01\uff1f]", r"\s+")]


def parser_of(media_type: str) -> Parser:
    """Import what it takes to read one of :data:`MEDIA_TYPES`."""
    if media_type == PDF:
        from knowledge import pdf  # here, as the service imports this module, and never reads a document itself

        return pdf.blocks_of
    parser = TEXTS[media_type]
    return lambda data: parser(text_of(data))


def chunks_of(data: bytes, parser: Parser) -> list[Chunk]:
    """All of the text, in order, in chunks of at most ``CHUNK_CHARS`` characters that do not reach beyond a heading
    or a page.

    Raises:
        ChatError: ``document_too_large``, and what the parser raises.
    """
    chunks = list(islice(_packed(parser(data)), MAX_CHUNKS + 1))
    if len(chunks) > MAX_CHUNKS:
        message = f"A document may have {MAX_CHUNKS:,} passages at most; this one has more."
        raise ChatError("document_too_large", message)
    return chunks


def _packed(blocks: Iterable[Block]) -> Iterator[Chunk]:
    path: list[tuple[int, str]] = []
    number, first, page = 0, 1, 0
    waiting, only_headings = "", True
    for block in blocks:
        heading = block.kind is Kind.HEADING
        if block.kind is Kind.PARAGRAPH:
            number += 1
        parted = (heading or block.page != page) and not only_headings
        if parted or len(waiting) + len(block.text.rstrip()) > CHUNK_CHARS:
            yield from _cut(waiting, _place(path, first, page))
            waiting, only_headings = "", True
        if heading:
            path = [*(above for above in path if above[0] < block.level), (block.level, block.title)]
            number = 0
        if not waiting or heading:
            first = max(number, 1)
        page = block.page
        waiting += block.text
        only_headings = only_headings and (heading or not block.text.strip())
    yield from _cut(waiting, _place(path, first, page))


def _place(path: Iterable[tuple[int, str]], paragraph: int, page: int) -> str:
    """A page is found by its number, and what has none by its paragraph's."""
    headings = " > ".join(filter(None, (label(title, HEADING_CHARS) for _, title in path)))
    return ", ".join(filter(None, (headings, f"page {page}" if page else f"paragraph {paragraph}")))


def _cut(text: str, place: str) -> Iterator[Chunk]:
    """The text in as many chunks as it takes. White space at their edges is left out, an indent is not."""
    whole, start = len(text.rstrip()), 0
    while start < whole:
        end = whole if whole - start <= CHUNK_CHARS else _break(text, start)
        part = text[start:end]
        start = end
        if part.strip():
            yield Chunk(place, re.sub(r"\A(?:[^\S\n]*\n)+", "", part).rstrip())


def _break(text: str, start: int) -> int:
    """Where to end a chunk of text that is too long for one: in its second half, if there is a place."""
    for pattern in _BREAKS:
        places = [match.end() for match in pattern.finditer(text, start + CHUNK_CHARS // 2, start + CHUNK_CHARS)]
        if places:
            return places[-1]
    return start + CHUNK_CHARS
