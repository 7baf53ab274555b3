"""PDF: the text of its pages, page by page. Scripts, files inside it, forms and notes are no text of it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from pypdf import PdfReader, apply_configuration
from pypdf.errors import LimitReachedError

from chat.errors import ChatError
from knowledge.blocks import Block, Kind
from knowledge.layout import Line, cleaned, paragraphs_of, with_headings, without_running
from knowledge.outline import Bookmark, bookmarks_of, named, under
from knowledge.signatures import seeming

MAX_PDF_PAGES = 1_000
"""A page of text takes some 14 ms: with more of them there would be no time for all."""

MAX_PDF_CHARS = 20_000_000
"""Of all pages. A thousand pages of text have three million; a few bytes can show the same text again and again."""

UNPACKED = 20_000_000
"""Bytes that a compressed part may have: a page's text has some thousand, a file's list of parts a megabyte or two."""

SAME_LINE = 0.2
"""Sizes of its letters by which what stands on the same line may be higher or lower."""

NEXT_LINE = 0.6
"""Sizes of its letters by which what is no index, above or below, is higher or lower: it is on another line."""

HEADER_WITHIN = 1_024
"""Bytes before which a PDF has to begin: mail programs and servers have put things before it."""


def blocks_of(data: bytes) -> Iterator[Block]:
    """A block's page is said with it.

    Raises:
        ChatError: ``document_unreadable``, ``document_encrypted``, ``document_too_large``, ``document_empty``.
    """
    if b"%PDF-" not in data[:HEADER_WITHIN] or seeming(data) not in ("", "a PDF"):
        other = seeming(data)
        reason = f" It seems to be {other}." if other else ""
        raise ChatError("document_unreadable", f"This is no PDF.{reason}")
    with apply_configuration(
        zlib_maximum_output_length=UNPACKED,
        lzw_maximum_output_length=UNPACKED,
        run_length_maximum_output_length=UNPACKED,
        array_based_stream_maximum_output_length=UNPACKED,
        jbig2dec_binary=None,  # a program that it would start for an image
        disable_legacy_handling=True,
    ):
        reader = _opened(data)
        lines = without_running(_lines(reader))
        if not lines:
            message = "There is no text in the PDF: its pages are empty, or images, as a scanner makes them."
            raise ChatError("document_empty", message)
        bookmarks = _bookmarks(reader)
    paragraphs = paragraphs_of(lines, named(bookmarks, lines))
    if bookmarks:
        yield from under(bookmarks, list(paragraphs))
        return
    for paragraph in with_headings(list(paragraphs)):
        kind = Kind.HEADING if paragraph.level else Kind.PARAGRAPH
        title = paragraph.text if paragraph.level else ""
        yield Block(kind, f"{paragraph.text}\n\n", paragraph.level, title, paragraph.page)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (ChatError, MemoryError):
        raise
    except LimitReachedError as error:
        message = f"{what} unpacks to more than is read, or is nested too deeply."
        raise ChatError("document_too_large", message) from error
    except Exception as error:  # a damaged file shows as an error of any kind, wherever its reader comes upon it
        raise ChatError("document_unreadable", f"{what} cannot be read: the file is damaged, or cut off.") from error


def _opened(data: bytes) -> PdfReader:
    try:
        with _reading("The PDF"):
            reader = PdfReader(BytesIO(data))
            pages = 0 if reader.is_encrypted else len(reader.pages)
    except ChatError as error:
        if error.code == "document_unreadable" and b"/Encrypt" in data:  # in a way that the library does not know
            raise _encrypted() from error
        raise
    if reader.is_encrypted:
        raise _encrypted()
    if pages > MAX_PDF_PAGES:
        message = f"A PDF may have {MAX_PDF_PAGES:,} pages at most; this one has {pages:,}."
        raise ChatError("document_too_large", message)
    return reader


def _encrypted() -> ChatError:
    message = "The PDF is encrypted, with a password or against copying: send one that is not."
    return ChatError("document_encrypted", message)


def _lines(reader: PdfReader) -> list[Line]:
    lines: list[Line] = []
    chars = 0
    for number, page in enumerate(reader.pages, 1):
        seen = _Page(number, MAX_PDF_CHARS - chars)
        with _reading(f"Page {number} of the PDF"):
            page.extract_text(visitor_operand_before=seen.leave_out, visitor_text=seen.see)
        seen.end_line()
        chars += seen.chars
        if chars > MAX_PDF_CHARS:
            message = f"A PDF may have {MAX_PDF_CHARS:,} characters at most; this one has more."
            raise ChatError("document_too_large", message)
        lines.extend(seen.lines)
    return lines


class _Page:
    """Puts together what the library has come upon on a page, in the order in which it stands in the file."""

    def __init__(self, number: int, most: int) -> None:
        self.lines: list[Line] = []
        self.chars = 0
        self._number = number
        self._most = most
        self._parts: list[tuple[str, float, float]] = []
        self._marked: list[bool] = []

    def leave_out(self, operator: bytes, operands: list[Any], _cm: object, _tm: object) -> None:
        """As the library calls it before it does what a page says.

        Browsers write a soft hyphen that is not seen as a space, and say that it stands for one.
        """
        if operator in (b"BDC", b"BMC"):
            marks = operands[-1] if operands else None
            actual = marks.get("/ActualText") if isinstance(marks, dict) else None
            self._marked.append(str(actual) == "\u00ad")
        elif operator == b"EMC" and self._marked:
            self._marked.pop()
        elif operator == b"Tj" and self._marked and self._marked[-1]:
            operands.clear()

    def see(self, text: str, cm: Sequence[float], tm: Sequence[float], _font: object, size: float) -> None:
        """As the library calls it. An error that is raised here it may take for one of the file's, and go on."""
        self.chars += len(text)
        if self.chars > self._most:
            return
        for index, part in enumerate(text.split("\n")):
            if index:
                self.end_line()
            if part:
                y = tm[4] * cm[1] + tm[5] * cm[3] + cm[5]
                scale = math.hypot(tm[2] * cm[0] + tm[3] * cm[2], tm[2] * cm[1] + tm[3] * cm[3])
                height = abs(size * scale)
                if part.strip() and self._parts and abs(self._parts[-1][1] - y) > NEXT_LINE * height:
                    self.end_line()
                self._parts.append((part, y, height))

    def end_line(self) -> None:
        text = cleaned("".join(part for part, _, _ in self._parts))
        if text.strip():
            _, y, size = max(self._parts, key=lambda part: len(part[0].strip()))
            known = math.isfinite(y) and math.isfinite(size) and size > 0
            line = Line(self._number, text, y if known else 0.0, size if known else 1.0)
            if known and self.lines and abs(self.lines[-1].y - y) < SAME_LINE * size:  # cells of a table
                before = self.lines.pop()
                line = Line(self._number, f"{before.text} {text.lstrip()}", before.y, before.size)
            self.lines.append(line)
        self._parts = []


def _bookmarks(reader: PdfReader) -> list[Bookmark]:
    """None where the outline is damaged: what the pages say is there without it."""
    try:
        with _reading("The outline"):
            return bookmarks_of(reader)
    except ChatError:
        return []
