"""The process that takes documents apart: ``python -m knowledge.worker``, JSON in, JSON out.

A document may be made to keep a parser busy, or to fill the memory: here it harms nobody.
"""

import json
import sys
from contextlib import suppress

from knowledge.chunks import chunks_of
from knowledge.html import UnreadableError

MEMORY = 1 << 30
"""Bytes of address space: the interpreter has some 50 MB, and a document at its limit takes a few hundred."""

UNREADABLE = 3
"""How this process ends where the document is none."""


def main() -> None:
    with suppress(ImportError, ValueError, OSError):  # as far as the system knows limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    media_type, text = json.load(sys.stdin.buffer)
    try:
        chunks = chunks_of(text, media_type)
    except (UnreadableError, MemoryError, RecursionError):
        sys.exit(UNREADABLE)
    sys.stdout.buffer.write(json.dumps([[chunk.place, chunk.text] for chunk in chunks]).encode())


if __name__ == "__main__":
    main()
