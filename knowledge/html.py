"""HTML: what a reader sees of it, without scripts, styles and the ways to other pages."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from chat.errors import ChatError
from knowledge.blocks import Block, Kind

UNSEEN = frozenset(
    ("head", "iframe", "nav", "noscript", "object", "script", "select", "style", "svg", "template", "textarea")
)
"""Elements whose content is no text of the page."""

BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "html",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "ul",
    ]
)
"""Elements that begin on a line of their own, as browsers show them."""

LINES = frozenset(("br", "caption", "dd", "li", "option", "tr"))
"""Elements that begin on a line of their own, and go on with what is before them."""

_SPACE = re.compile(r"\s+")
_HEADING = re.compile(r"h([1-6])")


def blocks_of(text: str) -> Iterator[Block]:
    """Raises:
    ChatError: ``document_unreadable``.
    """
    reader = _Reader()
    try:
        reader.feed(text)
        reader.close()
    except AssertionError as error:  # the parser's way to say that a declaration is none
        raise ChatError("document_unreadable", "The document cannot be read as HTML.") from error
    reader.flush()
    yield from reader.blocks


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._words: list[str] = []
        self._unseen: list[str] = []
        self._level = 0
        self._pre = 0
        self._kind = Kind.PARAGRAPH

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # the parser's
        if tag in UNSEEN:
            self._unseen.append(tag)
        elif tag in ("body", "main", "article"):  # whatever was left open before it
            self._unseen.clear()
        self._cut(tag)
        heading = _HEADING.fullmatch(tag)
        if heading:
            self._level = int(heading[1])
        elif tag == "pre":
            self._pre += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._cut(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unseen:
            del self._unseen[self._unseen.index(tag) :]
        self._cut(tag)
        if tag == "pre" and self._pre:
            self._pre -= 1

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._words.append(data)

    def _cut(self, tag: str) -> None:
        """End a block where this tag begins or ends one."""
        if tag in BLOCKS or _HEADING.fullmatch(tag):
            self.flush()
            self._kind, self._level = Kind.PARAGRAPH, 0
        elif tag in LINES and not self._level:
            self.flush()
            self._kind = Kind.MORE if self.blocks else Kind.PARAGRAPH
        elif tag in ("td", "th"):
            self._words.append(" ")

    def flush(self) -> None:
        said = "".join(self._words)
        self._words = []
        text = said.strip("\r\n").rstrip() if self._pre else _SPACE.sub(" ", said).strip()
        if not text.strip():
            return
        if self._level:
            self.blocks.append(Block(Kind.HEADING, f"{text}\n\n", self._level, text))
        elif self._kind is Kind.MORE:
            last = self.blocks[-1]
            if last.kind is not Kind.HEADING:
                self.blocks[-1] = Block(last.kind, f"{last.text.rstrip()}\n")
            self.blocks.append(Block(Kind.MORE, f"{text}\n\n"))
        else:
            self.blocks.append(Block(Kind.PARAGRAPH, f"{text}\n\n"))
