"""The words of a message, and the part of it that shows what was found. Pure.

Not FTS5's own ``snippet()``: that compares each match with all others, and a message may be nothing but matches.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import NamedTuple

from chat.search import Search
from store.search import SNIPPET_WORDS, clipped

WORD_CHARS = 100
"""What counts of a word."""

MOST_MATCHES = 1_000
"""Places of one term in a message among which the best is sought: it may be all that there is in it."""

BEFORE_MATCH = 3
"""Words of a snippet before what was found."""

# Letters and numbers, characters of private use, and accents that stand behind their letter.
_LETTER = r"(?:[^\W_]|[\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd])"
_WORD = re.compile(rf"{_LETTER}(?:{_LETTER}|[\u0300-\u036f])*")


class Word(NamedTuple):
    """A word, and where it stands in its text."""

    text: str
    start: int
    end: int


def words_in(text: str) -> Iterator[Word]:
    """The words without case and accents."""
    for match in _WORD.finditer(text):
        yield Word(_folded(match[0]), match.start(), match.end())


def _folded(word: str) -> str:
    if word.isascii():
        return word[:WORD_CHARS].lower()
    apart = unicodedata.normalize("NFD", word.casefold())
    return "".join([letter for letter in apart if unicodedata.category(letter) != "Mn"])[:WORD_CHARS] or word[:1]


def terms_of(wanted: Search) -> list[list[str]]:
    """What was typed: each word, as the parts that have to follow one another in it."""
    return [[part.text for part in words_in(word)] for word in wanted.words]


def snippet(content: str, terms: Sequence[Sequence[str]], *, beginning: bool) -> tuple[str, Sequence[tuple[int, int]]]:
    """The part of the message that has most of what was looked for, and where in it that is."""
    words = list(words_in(content))
    matches = sorted(_matches(words, terms, beginning=beginning))
    first = _best(matches)
    start = max(0, min(first - BEFORE_MATCH, len(words) - SNIPPET_WORDS))
    end = start + SNIPPET_WORDS
    begin = words[start].start if start else 0
    stop = words[end - 1].end if end < len(words) else len(content)
    before, after = "…" if start else "", "…" if end < len(words) else ""
    shift = len(before) - begin
    marks: list[tuple[int, int]] = []
    for place, behind_it, _ in matches:
        if start <= place and behind_it <= end:
            mark = words[place].start + shift, words[behind_it - 1].end + shift
            if marks and mark[0] < marks[-1][1]:
                begun, ended = marks.pop()
                mark = begun, max(ended, mark[1])
            marks.append(mark)
    return clipped(f"{before}{content[begin:stop]}{after}", marks)


def _matches(
    words: Sequence[Word], terms: Sequence[Sequence[str]], *, beginning: bool
) -> Iterator[tuple[int, int, int]]:
    """Where a term begins, the place behind it, and which one it is: the first of each term."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word.text, []).append(place)
    for number, parts in enumerate(terms):
        if parts:
            found = _places(words, places, parts, open_ended=beginning and number == len(terms) - 1)
            for place in islice(found, MOST_MATCHES):
                yield place, place + len(parts), number


def _places(
    words: Sequence[Word], places: Mapping[str, Sequence[int]], parts: Sequence[str], *, open_ended: bool
) -> Iterator[int]:
    """Where the parts follow one another; ``open_ended``: the last may be the beginning of a word."""
    *whole, last = parts
    starts: Iterable[int] = places.get(parts[0], ())
    if open_ended and not whole:
        starts = merge(*[known for word, known in places.items() if word.startswith(last)])
    for start in starts:
        end = start + len(whole)
        ends = end < len(words) and (words[end].text.startswith(last) if open_ended else words[end].text == last)
        if ends and all(words[start + offset].text == part for offset, part in enumerate(whole)):
            yield start


def _best(matches: Sequence[tuple[int, int, int]]) -> int:
    """The first place from which on a snippet has the most different terms. Looks at each match twice."""
    best, most, end = 0, 0, 0
    inside = Counter[int]()
    for place, _, term in matches:
        while end < len(matches) and matches[end][0] < place + SNIPPET_WORDS:
            inside[matches[end][2]] += 1
            end += 1
        if len(inside) > most:
            best, most = place, len(inside)
        inside[term] -= 1
        if not inside[term]:
            del inside[term]
    return best
