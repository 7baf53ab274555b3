"""Lines as they stand on pages are put together: words, paragraphs, headings.

Few files know what a paragraph or a heading is. There is to go by what people see: the space between lines, and the
size of their letters.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

LARGER = 1.15
"""So much larger than most of the text is what stands in a heading, where no outline says what does."""

HEADING_CHARS = 200
"""What is longer than this is no heading, however large it is."""

LEVELS = 6
"""Of headings: what is deeper counts as the deepest, as in HTML."""

SPACED = 1.2
"""Lines that are so much further apart than most are in two paragraphs."""

DOUBLE = 2.5
"""Lines that are further apart than so many sizes of their letters are no neighbours: with double spacing it is 2.4."""

TITLE = 1.3
"""What is so much larger than most of the text is a title, even if several pages have the same."""

RUNNING = 3
"""Pages that have the same line at their top, or at their bottom, where it says nothing of what they are about."""

_NUMBER = re.compile(r"\b[0-9]{1,4}\b")
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
_NO_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_HYPHENATED = re.compile(r"([^\W\d_])[-\u00ad\u2010]\n[ \t]*([^\W\d_]\S*)[ \t]*\n?")
_END = tuple(".!?:;…。\uff01\uff1f\"”»')")


@dataclass(frozen=True, slots=True)
class Line:
    """``page`` counts from 1. ``y`` is where it stands, the larger the higher; ``size`` that of most of its letters."""

    page: int
    text: str
    y: float
    size: float


@dataclass(frozen=True, slots=True)
class Paragraph:
    """``level`` is 0 where it is no heading; ``y`` and ``size`` are its first line's."""

    page: int
    text: str
    y: float
    size: float
    level: int = 0


def cleaned(text: str) -> str:
    """Without what no font shows, and with the letters that a ligature stands for: nobody searches for one."""
    return _NO_TEXT.sub("", text.translate(_LIGATURES))


def without_running(lines: Sequence[Line]) -> list[Line]:
    """Without what stands at the same height at the edge of several pages, with the page's number or without one.

    A page of one or two lines keeps them, and large letters stay: it may be a slide, and these its title.
    """
    pages: dict[int, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        pages[line.page].append(place)
    body = _body_size((line.size, len(line.text)) for line in lines)
    alike: dict[tuple[str, int], set[int]] = defaultdict(set)
    for places in pages.values():
        heights = [lines[place].y for place in places]
        edges = {places[heights.index(max(heights))], places[heights.index(min(heights))]}
        for place in edges:
            if len(places) > 2 and lines[place].size <= body * TITLE and len(lines[place].text) <= HEADING_CHARS:
                for said in _without_number(lines[place]):
                    alike[said, round(lines[place].y)].add(place)
    left_out = {place for places in alike.values() if len(places) >= RUNNING for place in places}
    return [line for place, line in enumerate(lines) if place not in left_out]


def _without_number(line: Line) -> Iterator[str]:
    """What it says, and that with its numbers, one or all, as what they are beyond the page's: they may count pages."""
    text = line.text.strip()
    yield text
    yield _NUMBER.sub(lambda found: f"\0{int(found[0]) - line.page}", text)
    for found in _NUMBER.finditer(text):
        yield f"{text[: found.start()]}\0{int(found[0]) - line.page}{text[found.end() :]}"


def paragraphs_of(lines: Sequence[Line], alone: Set[int]) -> Iterator[Paragraph]:
    """The paragraphs, which end with their page. The lines at the places in ``alone`` are one each."""
    leading = _leading(lines)
    waiting: list[Line] = []
    for place, line in enumerate(lines):
        if waiting and (place in alone or place - 1 in alone or _parted(waiting[-1], line, leading)):
            yield _paragraph(waiting)
            waiting = []
        waiting.append(line)
    if waiting:
        yield _paragraph(waiting)


def with_headings(paragraphs: Sequence[Paragraph]) -> Iterator[Paragraph]:
    """The same, of which those in large letters are headings; the larger, the higher."""
    body = _body_size((paragraph.size, len(paragraph.text)) for paragraph in paragraphs)
    sizes = sorted({_rounded(each.size) for each in paragraphs if _is_heading(each, body)}, reverse=True)
    levels = {size: min(level, LEVELS) for level, size in enumerate(sizes, 1)}
    for each in paragraphs:
        level = levels[_rounded(each.size)] if _is_heading(each, body) else 0
        yield Paragraph(each.page, each.text, each.y, each.size, level)


def _body_size(sizes: Iterable[tuple[float, int]]) -> float:
    """The size of most letters, of how many of which size there are."""
    letters: Counter[float] = Counter()
    for size, number in sizes:
        letters[_rounded(size)] += number
    return letters.most_common(1)[0][0] if letters else 0.0


def _leading(lines: Sequence[Line]) -> float:
    """How far below the one before most lines stand, in sizes of their letters. Long lines count for more."""
    gaps: Counter[float] = Counter()
    for above, line in pairwise(lines):
        gap = (above.y - line.y) / line.size
        if _alike(above, line) and 0 < gap < DOUBLE:
            gaps[round(gap, 1)] += len(above.text)
    return gaps.most_common(1)[0][0] if gaps else 1.2


def _alike(above: Line, line: Line) -> bool:
    return above.page == line.page and 0.9 < above.size / line.size < 1.1


def _parted(above: Line, line: Line, leading: float) -> bool:
    gap = (above.y - line.y) / line.size
    if not _alike(above, line) or gap > leading * SPACED:
        return True
    return gap < -1 and above.text.rstrip().endswith(_END)  # at the top of the next column, which may go on with it


def _paragraph(lines: Iterable[Line]) -> Paragraph:
    first, *_ = lines = list(lines)
    text = _HYPHENATED.sub(_joined, "\n".join(line.text.rstrip() for line in lines))
    return Paragraph(first.page, text.replace("\u00ad", ""), first.y, first.size)


def _joined(found: re.Match[str]) -> str:
    """A word that was cut at the end of a line, on that line; a hyphen before a capital letter belongs to the word."""
    before, rest = found.groups()
    return f"{before}{rest}\n" if rest[0].islower() else found[0]


def _is_heading(paragraph: Paragraph, body: float) -> bool:
    return (
        paragraph.size > body * LARGER
        and len(paragraph.text) <= HEADING_CHARS
        and any(character.isalpha() for character in paragraph.text)
    )


def _rounded(size: float) -> float:
    return round(size * 2) / 2
