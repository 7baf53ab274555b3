"""What documents of every kind are taken apart into."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """``MORE`` belongs to the paragraph before it, such as the next item of a list: a place to break, no new number."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    MORE = "more"
    BLANK = "blank"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document with the white space behind it: all blocks, joined, are the document's text.

    ``level`` is a heading's, from 1 to 6, and ``title`` what it says. ``page`` counts from 1; 0 where there is none.
    """

    kind: Kind
    text: str
    level: int = 0
    title: str = ""
    page: int = 0
