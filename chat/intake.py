"""How documents come in, whichever way: what kind of file it is, whether it may, and what is stored of it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from chat.documents import DocumentReader, NewDocument
from chat.errors import ChatError
from chat.ids import new_id

TITLE_CHARS = 300
"""Longest title of a document, and name of a file."""

EXTENSIONS = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
}
"""What a file is where nobody says it."""

UNSAID = ("", "application/octet-stream")
"""What programs say of a file that they know nothing of."""


@dataclass(frozen=True)
class File:
    """A document as it comes: its bytes, and the media type that :func:`media_type_of` made out."""

    name: str
    title: str
    media_type: str
    data: bytes

    @cached_property
    def digest(self) -> str:
        """What tells it from another one: the SHA-256 of its bytes, in hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes documents in. ``largest``: bytes of one; ``most``: how many a user may have, 0 for any."""

    reader: DocumentReader
    largest: int
    most: int

    def check(self, media_type: str, size: int) -> None:
        """What can be said before the document is read.

        Raises:
            ChatError: ``unsupported_media_type``, ``document_too_large``.
        """
        if media_type not in self.reader.media_types:
            known = ", ".join(self.reader.media_types)
            raise ChatError("unsupported_media_type", f"The document's media type has to be one of {known}.")
        if size > self.largest:
            message = f"A document may have {self.largest:,} bytes at most; this one has {size:,}."
            raise ChatError("document_too_large", message)

    async def document(self, file: File, collection: str, user_id: str | None) -> NewDocument:
        """The file, taken apart. ``user_id``: whose it is; None where everybody may read it.

        Raises:
            ChatError: those of :meth:`check`; ``document_unreadable``, ``document_empty``.
        """
        self.check(file.media_type, len(file.data))
        if "\0" in file.title:
            raise ChatError("document_unreadable", "There is a NUL in the document's title.")
        chunks = await self.reader.chunks(file.data, file.media_type)
        if not chunks:
            raise ChatError("document_empty", "There is no text in the document.")
        media_type, size = file.media_type, len(file.data)
        return NewDocument(new_id("doc"), user_id, collection, file.title, media_type, size, chunks, file.digest)


def media_type_of(name: str, said: str) -> str:
    """What a file is: as ``said``, without parameters, or else by its name. Empty where nobody knows."""
    media_type = said.partition(";")[0].strip().lower()
    return EXTENSIONS.get(PurePosixPath(name).suffix.lower(), media_type) if media_type in UNSAID else media_type


def name_of_file(path: str) -> str:
    """The last part of a path, of whichever system: what people know a file by. Nothing that cannot be shown."""
    name = path.replace("\\", "/").rpartition("/")[2]
    return "".join([character for character in name if character.isprintable()]).strip()[:TITLE_CHARS]
