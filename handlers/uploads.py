"""Files that come as a form, ``multipart/form-data``: https://www.rfc-editor.org/rfc/rfc7578."""

import re
import sys
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Scope

from chat.errors import ChatError
from chat.intake import File, media_type_of, name_of_file
from handlers.bodies import UploadBody, checked, spoken_for

PATH = "/documents"
"""Where files come in."""

FORM = "multipart/form-data"

FIELDS = 8
"""Parts of a form besides its files: more than there are names for."""

FALSE_BOUNDARIES = 100
"""How often what is in the parts may look like their boundary, which is chosen so that it does not. The parser goes on
byte by byte behind each of them, at a hundred times the cost, while nobody else has their turn."""

FIELD_BYTES = 4_096
"""Of such a part: a title has 300 characters."""


# https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1
_BOUNDARY = re.compile(
    r"""(?i:;\s*boundary=)(?:"([\w'()+,\-./:=? ]{1,70})"|([\w'()+,\-./:=?]{1,70}))\s*(?:;|$)""", re.ASCII
)


class _Parser(MultiPartParser):
    """Starlette's, which takes a form that was cut off for a whole one, and leaves its last part out: this does not.

    ``boundary`` is all that it is told of the form's kind: Python keeps every name of a charset that it is asked for.
    ``most``: parts. The files stay in memory, which the body's limit has room for: there may be no disk to write to.
    """

    spool_max_size = sys.maxsize

    def __init__(self, boundary: str, stream: AsyncGenerator[bytes, None], most: int) -> None:
        self._boundary = f"\r\n--{boundary}".encode()
        headers = Headers({"content-type": f'{FORM}; boundary="{boundary}"'})
        super().__init__(headers, self._to_its_end(stream), max_files=most, max_fields=most, max_part_size=FIELD_BYTES)
        self._ended = False
        self._most = most
        self._parts = 0

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._most:
            raise _too_many(self._most - FIELDS)
        super().on_part_begin()

    def on_end(self) -> None:
        self._ended = True

    async def _to_its_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        boundaries, tail = 0, b""
        async for chunk in stream:
            boundaries += (tail + chunk).count(self._boundary)
            if boundaries > self._most + FALSE_BOUNDARIES:
                raise _too_many(self._most - FIELDS)
            tail = (tail + chunk)[1 - len(self._boundary) :]
            yield chunk
        if not self._ended:  # said in here, so that the part that was begun is closed
            raise ChatError("invalid_form", "The form was cut off: it does not end with its boundary.")


def brings_files(scope: Scope) -> bool:
    """Whether it is a request whose body may be as large as files are."""
    if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
        return False
    return is_form(Headers(scope=scope))


def is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


async def upload_of(request: Request, most: int) -> tuple[UploadBody, list[File]]:
    """Read and check a form: its fields and its files, ``most`` at most. A single one has the form's title.

    Raises:
        ChatError: ``invalid_form``, ``too_many_files``, ``invalid_request``, ``user_mismatch``; ``body_too_large``.
    """
    form = await _form_of(request, most + FIELDS)
    try:
        fields, files = _apart(form)
        if len(files) > most:
            raise _too_many(most)
        body = spoken_for(request, checked(UploadBody, {**fields, "file": [file.filename for file in files]}))
        if body.title is not None and len(files) > 1:
            raise ChatError("invalid_request", "title: several files have their names for titles.")
        return body, [await _read(file, body.title) for file in files]
    finally:
        await form.close()


async def _form_of(request: Request, most: int) -> FormData:
    found = _BOUNDARY.search(request.headers["content-type"])
    if found is None:
        raise ChatError("invalid_form", f"A {FORM} needs a boundary.")
    try:
        return await _Parser(found[1] or found[2], request.stream(), most).parse()
    except MultiPartException as error:
        raise ChatError("invalid_form", f"The body is no {FORM}, or a field of it is too long.") from error


def _apart(form: FormData) -> tuple[dict[str, str], list[UploadFile]]:
    fields: dict[str, str] = {}
    files: list[UploadFile] = []
    for name, part in form.multi_items():
        if isinstance(part, UploadFile) != (name == "file"):
            raise ChatError("invalid_request", "file: a part of this name, and no other, has to be a file.")
        if isinstance(part, UploadFile):
            files.append(part)
        elif name in fields:
            raise ChatError("invalid_request", "There is more than one field of the same name.")
        else:
            fields[name] = part
    return fields, files


async def _read(file: UploadFile, title: str | None) -> File:
    name = name_of_file(file.filename or "")
    if not name:
        raise ChatError("invalid_request", "file: it needs a name.")
    return File(name, title or name, media_type_of(name, file.content_type or ""), await file.read())


def _too_many(most: int) -> ChatError:
    return ChatError("too_many_files", f"A request may bring {most:,} files at most.")
