"""Documents are taken apart beside the service, within a time."""

import asyncio

import pytest

from chat.documents import Chunk
from chat.errors import ChatError
from knowledge.chunks import chunks_of, parser_of
from knowledge.reading import Reader
from tests.patience import soon

SLOW = b"<a " * 330_000
"""A parser goes through all of it again for each of these."""


async def test_document_is_taken_apart_in_another_process() -> None:
    text = ("# Zürich\n\n" + "A sentence. " * 500).encode()
    assert await soon(Reader().chunks(text, "text/markdown")) == chunks_of(text, parser_of("text/markdown"))


async def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ChatError, match=r"document_unreadable: .* as HTML"):
        await soon(Reader().chunks(b"<![nothing that is known[", "text/html"))


async def test_document_that_keeps_a_parser_busy_is_given_up_and_its_process_ended() -> None:
    reader = Reader(seconds=0.5)
    with pytest.raises(ChatError, match=r"document_unreadable: .* too long"):
        await soon(reader.chunks(SLOW, "text/html"))
    assert await soon(Reader().chunks(b"tea", "text/plain")) == [Chunk("paragraph 1", "tea")]


async def test_process_that_dies_is_no_crash() -> None:
    with pytest.raises(ChatError, match="document_unreadable"):
        await soon(Reader().chunks(b"tea", "text/unknown"))


async def test_loop_goes_on_while_a_document_is_taken_apart() -> None:
    reading = asyncio.create_task(Reader(seconds=1).chunks(SLOW, "text/html"))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.01)
        turns += 1
    with pytest.raises(ChatError):
        await reading
    assert turns > 5


async def test_who_goes_away_leaves_no_process_behind() -> None:
    reader = Reader()
    for _ in range(3):  # more than may be read at once
        reading = asyncio.create_task(reader.chunks(SLOW, "text/html"))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert await soon(reader.chunks(b"tea", "text/plain")) == [Chunk("paragraph 1", "tea")]
