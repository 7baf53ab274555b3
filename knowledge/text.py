"""Text out of bytes."""

import codecs
from collections.abc import Sequence

from chat.errors import ChatError
from knowledge.signatures import seeming

_MARKS: Sequence[tuple[bytes, str]] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""What files begin with that say how they are written, such as those of Windows."""


def text_of(data: bytes) -> str:
    """UTF-8; UTF-16 as well where a byte order mark says so.

    Raises:
        ChatError: ``document_unreadable``.
    """
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    other = seeming(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        reason = f"It seems to be {other}" if other else f"It is not {encoding.removesuffix('-sig').upper()}"
        raise ChatError("document_unreadable", f"This is no text. {reason}.") from None
    if data.startswith(b"%PDF-"):  # one of letters alone is no text either
        raise ChatError("document_unreadable", f"This is no text. It seems to be {other}.")
    if "\0" in text:
        reason = f"it seems to be {other}" if other else "it is no text, or in UTF-16 without a byte order mark"
        raise ChatError("document_unreadable", f"There is a NUL in the document: {reason}.")
    return text
