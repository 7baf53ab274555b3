"""Where an answer is from: what may become one of its sources, and what those of one run are called."""

import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from chat.events import Source

MAX_SOURCES = 64
"""Sources of one run. They are stored, kept in memory and sent to everybody who follows; more would help no reader."""

MAX_URL = 2_048
"""Characters of an address, as browsers and proxies take it. A longer one is left out: cut, it would lead elsewhere."""

MAX_LABEL = 300
"""Characters of a title, of a document's name and of a place in it: a line of a list, for people."""

MAX_TEXT = 2_000
"""Characters of a passage: what can be read in a footnote. With the other limits, 64 sources have 320,000."""

MAX_PLACE = 1 << 31
"""Above every place in an answer that this service takes, and JSON's numbers are exact below."""

# What cannot be in an address, or would make a link look like another one. https://www.rfc-editor.org/rfc/rfc3986
_NO_ADDRESS = re.compile(r'[\x00-\x20\x7f-\xa0\s"<>\\^`{|}\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]')


def address(url: str) -> str | None:
    """The address, if a click on it does no more than to open a page: nothing but HTTP does that."""
    if len(url) > MAX_URL or _NO_ADDRESS.search(url):
        return None
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:  # such as "http://["
        return None
    return url if known else None


def label(text: str | None, longest: int = MAX_LABEL) -> str | None:
    """The text as far as there is room for it; None if there is none."""
    text = (text or "").strip()
    return (text if len(text) <= longest else f"{text[: longest - 1]}…") or None


def span(start: object, end: object) -> tuple[int, int] | None:
    """The characters of an answer from ``start`` up to ``end``, if that is what they say."""
    whole = type(start) is int and type(end) is int  # not isinstance: True is an int as well
    return (start, end) if whole and 0 <= start < end < MAX_PLACE else None  # type: ignore[operator,return-value]


def key_of(source: Source) -> tuple[object, ...]:
    """What makes it another source than the next one. A document may have several places of the same name."""
    passage = source.text if source.document is not None else None
    return source.url, source.document, source.place, source.start, source.end, passage


def admitted(found: Source, known: Sequence[Source], offset: int) -> Source | None:
    """The source as the next of a run that has the ``known`` ones; None if it is among them, or there are too many.

    Its span counts from ``offset`` characters into the answer: a model counts in what it says in one go.
    """
    if found.start is not None and found.end is not None:
        found = replace(found, start=found.start + offset, end=found.end + offset)
    if len(known) >= MAX_SOURCES or key_of(found) in map(key_of, known):
        return None
    return replace(found, id=f"source_{len(known) + 1}")
