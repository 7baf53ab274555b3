"""The process that takes documents apart: ``python -m knowledge.worker``.

In comes a line that says the media type, and the file behind it. Out comes a line of JSON for each chunk,
``[place, text]``, or one for a refusal, ``{"code": ..., "message": ...}``.

A document may be made to keep a parser busy, or to fill the memory: here it harms nobody. This process was given no key
of the service's, and can write no file.
"""

import json
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress

from chat.errors import ChatError
from knowledge.chunks import chunks_of, parser_of

CPU_SECONDS = 30
"""For one document. A megabyte of HTML takes one or two, a PDF of a thousand pages ten to fifteen."""

MEMORY = 512 << 20
"""Bytes of address space: the interpreter has some 50 MB, and a document at its limit takes a few hundred."""

OPEN_FILES = 16
"""Three are open, and a codec or two may be imported."""

LIMITS: Mapping[str, tuple[int, int]] = {
    "RLIMIT_AS": (MEMORY, MEMORY),
    "RLIMIT_CPU": (CPU_SECONDS, CPU_SECONDS + 1),  # the first of them ends it with a signal of its own
    "RLIMIT_NOFILE": (OPEN_FILES, OPEN_FILES),
    "RLIMIT_FSIZE": (0, 0),
    "RLIMIT_NPROC": (0, 0),
    "RLIMIT_CORE": (0, 0),
}
"""By their names in the module ``resource``, the soft ones and the hard ones."""


def main() -> None:
    logging.disable()  # what a library says of a document nobody shall read, nor wait for
    media_type = sys.stdin.buffer.readline().decode().rstrip("\n")
    parser = parser_of(media_type)
    _limit()  # now: Python keeps what it has compiled of the imports before
    try:
        lines = [[chunk.place, chunk.text] for chunk in chunks_of(sys.stdin.buffer.read(), parser)]
        said = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode()
    except ChatError as refusal:
        said = _refusal(refusal.code, refusal.message)
    except (MemoryError, RecursionError):
        said = _refusal("document_unreadable", "The document takes too much memory to be taken apart.")
    sys.stdout.buffer.write(said)


def _limit() -> None:
    """As far as the system knows limits, and has none that are stricter."""
    with suppress(ImportError):
        import resource

        for name, most in LIMITS.items():
            with suppress(AttributeError, ValueError, OSError):
                resource.setrlimit(getattr(resource, name), most)


def _refusal(code: str, message: str) -> bytes:
    return json.dumps({"code": code, "message": message}).encode()


if __name__ == "__main__":
    main()
