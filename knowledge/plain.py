"""Plain text: paragraphs with empty lines between them."""

from collections.abc import Iterator

from knowledge.blocks import Block, Kind


def blocks_of(text: str) -> Iterator[Block]:
    paragraph: list[str] = []
    said = ended = False
    for line in text.splitlines(keepends=True):
        blank = not line.strip()
        if ended and not blank:
            yield Block(Kind.PARAGRAPH, "".join(paragraph))
            paragraph = []
        paragraph.append(line)
        said = not blank or said
        ended = blank and said
    if paragraph:
        yield Block(Kind.PARAGRAPH, "".join(paragraph))
