"""The process that takes documents apart: ``python -m knowledge.worker``.

In comes a line that says the media type, and the file behind it. Out comes JSON: ``{"chunks": [[place, text], ...]}``,
or ``{"code": ..., "message": ...}`` of a refusal.

A document may be made to keep a parser busy, or to fill the memory: here it harms nobody.
"""

import json
import sys
from contextlib import suppress
from typing import Any

from chat.errors import ChatError
from knowledge.chunks import chunks_of

MEMORY = 1 << 30
"""Bytes of address space: the interpreter has some 50 MB, and a document at its limit takes a few hundred."""


def main() -> None:
    with suppress(ImportError, ValueError, OSError):  # as far as the system knows limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    media_type = sys.stdin.buffer.readline().decode().rstrip("\n")
    said: dict[str, Any]
    try:
        chunks = chunks_of(sys.stdin.buffer.read(), media_type)
        said = {"chunks": [[chunk.place, chunk.text] for chunk in chunks]}
    except ChatError as refusal:
        said = {"code": refusal.code, "message": refusal.message}
    except (MemoryError, RecursionError):
        said = {"code": "document_unreadable", "message": "The document takes too much memory to be taken apart."}
    sys.stdout.buffer.write(json.dumps(said).encode())


if __name__ == "__main__":
    main()
