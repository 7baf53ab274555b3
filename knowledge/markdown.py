"""Markdown, line by line: headings, paragraphs, lists and fenced code, as https://spec.commonmark.org/0.31.2/ has them.

Not a whole parser: nothing is rendered, and of what a line means only that counts where a document may be taken apart.
"""

import re
from collections.abc import Iterator

from knowledge.blocks import Block, Kind

_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_ITEM = re.compile(r" {0,3}(?:[-*+]|[0-9]{1,9}[.)])(?:[ \t]|$)")


def blocks_of(text: str) -> Iterator[Block]:
    """The blocks in order; their texts, joined, are the whole document."""
    block: list[str] = []
    kind = Kind.BLANK
    fence = ""
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\r\n")
        if fence:
            block.append(line)
            fence = "" if _closes(bare, fence) else fence
            continue
        level, title = _heading(bare)
        begun = not block or not block[-1].strip()  # nothing, or an empty line, before it
        opened = _FENCE.match(bare)
        if level:
            yield from _done(kind, block)
            block, kind = [], Kind.BLANK
            yield Block(Kind.HEADING, line, level, title)
        elif (underline := _UNDERLINE.match(bare)) and len(block) == 1 and not begun and not _ITEM.match(block[0]):
            yield Block(Kind.HEADING, block[0] + line, 1 if underline[1][0] == "=" else 2, block[0].strip())
            block, kind = [], Kind.BLANK
        elif bare.strip() and (opened or _ITEM.match(bare) or begun):
            yield from _done(kind, block)
            block, kind = [line], Kind.PARAGRAPH if begun or opened else Kind.MORE
            fence = opened[1] if opened else ""
        else:
            block.append(line)
    yield from _done(kind, block)


def _done(kind: Kind, block: list[str]) -> Iterator[Block]:
    if block:
        yield Block(kind, "".join(block))


def _heading(line: str) -> tuple[int, str]:
    found = _HEADING.match(line)
    if found is None:
        return 0, ""
    title = line[found.end() :].strip()
    bare = title.rstrip("#")  # a closing sequence, if a space is before it
    return len(found[1]), title if bare and not bare[-1].isspace() else bare.rstrip()


def _closes(line: str, fence: str) -> bool:
    bare = line.strip()
    return len(bare) >= len(fence) and not bare.strip(fence[0]) and len(line) - len(line.lstrip(" ")) < 4
