"""Bytes are read as text, or refused with a word on what they seem to be."""

import gzip
import io
import zipfile

import pytest

from chat.errors import ChatError
from knowledge.text import text_of


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_as_its_byte_order_mark_says(encoding: str) -> None:
    assert text_of("Zürich 日本語 🌍".encode(encoding)) == "Zürich 日本語 🌍"
    assert text_of(b"\xfe\xff" + "Zürich".encode("utf-16-be")) == "Zürich"
    assert text_of(b"") == ""


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("word/document.xml", "tea " * 100)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (archive(), "ZIP archive"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
        (b"RIFF\x10\0\0\0WEBPVP8 \xff", "WebP"),
        (b"MZ\0\0\x03", "a program"),
        (b"\x7fELF\x02\x01\x01\0", "a program"),
        (gzip.compress(b"tea", mtime=0), "gzip"),
        (b"%PDF-1.7\n1 0 obj\n", "a PDF"),
        ("Zürich".encode("latin-1"), "not UTF-8"),
        ("tea".encode("utf-16-le"), "without a byte order mark"),
        (b"\xff\xfet", "not UTF-16"),
        (b"\xff\xfe" + "\ud83d".encode("utf-16-le", "surrogatepass"), "not UTF-16"),
        (b"tea\0", "NUL"),
    ],
)
def test_what_is_no_text_is_refused_with_what_it_seems_to_be(data: bytes, reason: str) -> None:
    with pytest.raises(ChatError, match=f"document_unreadable: .*{reason}"):
        text_of(data)


def test_words_that_a_program_begins_with_are_no_program() -> None:
    assert (
        text_of(b"MZ is how a program begins, and GIF8 an image.") == "MZ is how a program begins, and GIF8 an image."
    )
