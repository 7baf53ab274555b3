"""Whole answers, decoded. ``tests/streams`` holds what real servers send: its README.md says which, and whence."""

from pathlib import Path

from chat.errors import ModelError
from chat.ports import Part
from chat.upstream import (
    CompletionDecoder,
)

STREAMS = {path.stem: path.read_bytes() for path in (Path(__file__).parent / "streams").glob("*.sse")}
WAVE = "\N{WAVING HAND SIGN}"


def decode(*reads: bytes) -> tuple[list[Part], ModelError | None]:
    """All parts of an answer that comes in these reads and then ends, and why it failed, if it did."""
    decoder = CompletionDecoder()
    parts = [part for data in reads for part in decoder.feed(data)]
    parts += decoder.finish()
    assert decoder.done
    return parts, decoder.failure


def parts_of(*reads: bytes) -> list[Part]:
    parts, failure = decode(*reads)
    assert failure is None
    return parts
