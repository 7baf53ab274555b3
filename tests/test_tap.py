"""The shorter way of a model's answer, from the socket to who hears it, against a real socket."""

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chat.errors import ModelError
from chat.events import ReasoningDelta, TextDelta, ToolStarted
from chat.model import OpenAIModel
from chat.ports import Finished, Part
from chat.tap import Lingering, Tap
from chat.upstream import CompletionDecoder
from tests.asking import HELLO, INCOMPLETE, TIMEOUT, ask, kind, playing
from tests.patience import soon
from tests.upstream import Action, End, Raw, chunk, completion, done, finish, reply, sse

CALL = sse({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "look"}}]}}]})


class Listener:
    """Hears what it is offered, unless ``deaf``."""

    def __init__(self) -> None:
        self.deaf = False
        self.heard: list[Part] = []
        self._more = asyncio.Event()

    def hear(self, parts: Sequence[Part]) -> bool:
        if self.deaf:
            return False
        self.heard += parts
        self._more.set()
        return True

    async def until(self, *texts: str) -> None:
        while self.heard != [TextDelta(text) for text in texts]:
            self._more.clear()
            await soon(self._more.wait())


class Reader:
    """Reads a stream in a task of its own, as the engine does."""

    def __init__(self, model: OpenAIModel, hear: Callable[[Sequence[Part]], bool]) -> None:
        self.parts: list[Part] = []
        self.failure: ModelError | None = None
        self._more = asyncio.Event()
        self.task = asyncio.create_task(self._read(model, hear))

    async def _read(self, model: OpenAIModel, hear: Callable[[Sequence[Part]], bool]) -> None:
        try:
            async with aclosing(model.stream(replace(HELLO, hear=hear))) as reads:
                async for parts in reads:
                    self.parts += parts
                    self._more.set()
        except ModelError as error:
            self.failure = error

    async def until(self, *parts: Part) -> None:
        while self.parts != list(parts):
            self._more.clear()
            await soon(self._more.wait())


@asynccontextmanager
async def reading(
    *actions: Action, headers: dict[str, str | None] | None = None, **options: float
) -> AsyncGenerator[tuple[Listener, Reader], None]:
    listener = Listener()
    async with playing(reply(*actions, headers=headers), **options) as (_, model):
        reader = Reader(model, listener.hear)
        try:
            yield listener, reader
        finally:
            reader.task.cancel()
            with suppress(asyncio.CancelledError):
                await reader.task


async def test_text_behind_the_first_read_is_heard_and_the_end_comes_out_of_the_stream() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    actions = (chunk("a"), gates[0], chunk("b"), gates[1], chunk("c"), chunk("d"), gates[2], finish(), gates[3], done())
    async with reading(*actions) as (listener, reader):
        await reader.until(TextDelta("a"))
        gates[0].set()
        await listener.until("b")
        gates[1].set()
        await listener.until("b", "c", "d")
        gates[2].set()
        gates[3].set()
        await soon(reader.task)
        assert reader.parts == [TextDelta("a"), Finished("stop")]


async def test_what_is_not_heard_comes_out_of_the_stream_in_its_place() -> None:
    gates = [asyncio.Event() for _ in range(3)]
    async with reading(chunk("a"), gates[0], chunk("b"), gates[1], chunk("c"), gates[2], chunk("d"), End.HOLD) as (
        listener,
        reader,
    ):
        await reader.until(TextDelta("a"))
        gates[0].set()
        await listener.until("b")
        listener.deaf = True
        gates[1].set()
        await reader.until(TextDelta("a"), TextDelta("c"))
        listener.deaf = False
        gates[2].set()
        await listener.until("b", "d")


async def test_nothing_is_heard_while_the_reader_is_busy() -> None:
    listener, gate = Listener(), asyncio.Event()
    async with (
        playing(reply(chunk("a"), gate, chunk("b"), finish(), done())) as (upstream, model),
        aclosing(model.stream(replace(HELLO, hear=listener.hear))) as reads,
    ):
        assert await soon(anext(reads)) == [TextDelta("a")]
        gate.set()
        await ask(model)  # another answer, whole: what was sent before is there
        assert listener.heard == []
        assert [part async for read in reads for part in read] == [TextDelta("b"), Finished("stop")]
        assert len(upstream.requests) == 2


async def test_a_break_while_the_reader_is_busy_is_told_at_its_next_read() -> None:
    gate = asyncio.Event()
    async with (
        playing(reply(chunk("a"), gate, chunk("b"), End.ABORT), completion("whole")) as (upstream, model),
        aclosing(model.stream(replace(HELLO, hear=Listener().hear))) as reads,
    ):
        assert await soon(anext(reads)) == [TextDelta("a")]
        gate.set()
        await soon(upstream.requests[0].closed.wait())
        await ask(model)  # another answer, whole: what has happened to the first connection is known
        with pytest.raises(ModelError) as failure:
            [read async for read in reads]
        assert kind(failure.value) == INCOMPLETE


@pytest.mark.parametrize("second", [b": a comment\n\n", Raw(b"2\r\n: "), sse({"choices": []})], ids=str)
async def test_a_read_without_parts_wakes_nobody(second: bytes | Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    received, arrived, given = bytearray(), asyncio.Event(), list[Sequence[Part]]()

    class Watched(Tap):
        async def next(self) -> Sequence[Part]:
            given.append(await super().next())
            return given[-1]

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            received.extend(data)
            arrived.set()

    monkeypatch.setattr("chat.model.Tap", Watched)
    gates = [asyncio.Event() for _ in range(2)]
    rest: tuple[Action, ...] = (Raw(b"\r\n2\r\n\n\n\r\n"),) if isinstance(second, Raw) else ()
    async with reading(chunk("a"), gates[0], second, gates[1], *rest, chunk("b"), End.HOLD) as (listener, reader):
        await reader.until(TextDelta("a"))
        gates[0].set()
        while (second.data if isinstance(second, Raw) else second) not in received:
            arrived.clear()
            await soon(arrived.wait())
        gates[1].set()
        await listener.until("b")
        assert given == [[TextDelta("a")]]
        assert reader.parts == [TextDelta("a")]


@pytest.mark.parametrize("end", [End.CLOSE, End.ABORT, Raw(b"no length\r\n")], ids=str)
async def test_a_break_behind_what_was_heard_is_told_at_once(end: Action) -> None:
    gates = [asyncio.Event() for _ in range(2)]
    async with reading(chunk("a"), gates[0], chunk("b"), gates[1], end, silence=600) as (listener, reader):
        await reader.until(TextDelta("a"))
        gates[0].set()
        await listener.until("b")
        gates[1].set()
        await soon(reader.task)
        assert kind(reader.failure) == INCOMPLETE


async def test_silence_counts_from_what_was_heard() -> None:
    gates = [asyncio.Event() for _ in range(2)]
    async with reading(chunk("a"), gates[0], chunk("b"), End.HOLD, silence=1) as (listener, reader):
        await reader.until(TextDelta("a"))
        gates[0].set()
        await listener.until("b")
        await soon(reader.task)
        assert kind(reader.failure) == TIMEOUT


async def test_text_that_comes_as_the_silence_is_over_is_not_lost() -> None:
    """The loop was busy: it sees both in the same turn, and the server has sent nothing behind the finish reason."""
    gate = asyncio.Event()
    async with reading(chunk("a"), gate, chunk("b") + finish(), End.HOLD, silence=0.2, first=20) as (_, reader):
        await reader.until(TextDelta("a"))
        gate.set()
        await asyncio.sleep(0)  # the server sends
        time.sleep(0.5)  # noqa: ASYNC251
        await soon(reader.task)
        assert (reader.parts, reader.failure) == ([TextDelta("a"), TextDelta("b"), Finished("stop")], None)


async def test_a_connection_that_was_heard_out_serves_the_next_request() -> None:
    async with playing(completion("Hello ", "world"), completion("again")) as (upstream, model):
        for _ in range(3):
            assert (await ask(model))[1] is None
        assert len({id(request.closed) for request in upstream.requests}) == 1


async def test_a_connection_whose_end_comes_late_serves_the_next_request() -> None:
    gate = asyncio.Event()
    late = reply(chunk("a"), finish(), done(), gate)
    other = reply(chunk("b"), finish(), done(), headers={"Connection": "close"})
    async with playing(late, other, completion("c")) as (upstream, model):
        assert await ask(model) == ([TextDelta("a"), Finished("stop")], None)  # and does not wait for it
        gate.set()
        assert (await ask(model))[1] is None  # whole: what was sent before is there
        assert (await ask(model))[1] is None
        first, second, third = [request.closed for request in upstream.requests]
        assert first is third is not second


async def test_a_connection_whose_end_does_not_come_is_closed() -> None:
    async with playing(reply(chunk("a"), finish(), done(), End.HOLD)) as (upstream, model):
        assert await ask(model) == ([TextDelta("a"), Finished("stop")], None)
        assert not upstream.requests[0].closed.is_set()
        await soon(upstream.requests[0].closed.wait())


async def test_what_lingers_is_closed_once() -> None:
    class Response:
        def __init__(self) -> None:
            self.ends, self.closed = list[Callable[[], None]](), 0
            self.content = SimpleNamespace(on_eof=self.ends.append)

        def close(self) -> None:
            self.closed += 1

    lingering, ended, silent = Lingering(), Response(), Response()
    for response in (ended, silent):
        lingering.keep(cast("Any", response))
    ended.ends[0]()
    assert (ended.closed, silent.closed) == (1, 0)
    lingering.close()
    silent.ends[0]()
    assert (ended.closed, silent.closed) == (1, 1)


async def test_a_reader_that_leaves_closes_the_connection() -> None:
    gate = asyncio.Event()
    async with playing(reply(chunk("a"), gate, chunk("b"), End.HOLD)) as (upstream, model):
        listener = Listener()
        reader = Reader(model, listener.hear)
        await reader.until(TextDelta("a"))
        gate.set()
        await listener.until("b")
        reader.task.cancel()
        await soon(upstream.requests[0].closed.wait())
        with suppress(asyncio.CancelledError):
            await reader.task


async def test_calls_and_thoughts_are_offered_too() -> None:
    gates = [asyncio.Event() for _ in range(2)]
    async with reading(chunk("a"), gates[0], chunk("", reasoning="b"), gates[1], CALL, End.HOLD) as (listener, reader):
        await reader.until(TextDelta("a"))
        listener.deaf = True  # as an engine is for what is no text
        gates[0].set()
        await reader.until(TextDelta("a"), ReasoningDelta("b"))
        gates[1].set()
        await reader.until(TextDelta("a"), ReasoningDelta("b"), ToolStarted("call_1", "look"))


async def test_aiohttp_is_told_what_is_not_about_the_answer() -> None:
    """A body that is still being sent while the answer begins waits for the transport."""
    told: list[str] = []

    class Inner(asyncio.Protocol):
        def pause_writing(self) -> None:
            told.append("pause")

        def resume_writing(self) -> None:
            told.append("resume")

    inner, left = Inner(), list[Callable[[], None]]()
    near, far = socket.socketpair()
    far.setblocking(False)  # noqa: FBT003
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: inner, sock=near)
    connection = SimpleNamespace(transport=transport, protocol=inner, add_callback=left.append)
    response = SimpleNamespace(connection=connection, content=None)
    tap = Tap(cast("Any", response), CompletionDecoder(), lambda parts: True)
    try:
        transport.set_write_buffer_limits(0)
        transport.write(b"x" * 2**22)
        assert told == ["pause"]
        while told == ["pause"]:
            await soon(asyncio.get_running_loop().sock_recv(far, 2**20))
        assert told == ["pause", "resume"]
        assert transport.get_protocol() is tap
        left[0]()
        assert transport.get_protocol() is inner
    finally:
        transport.abort()
        far.close()


PIECES = [chunk("a"), chunk("b"), finish(), done()]
LENGTH = {"Transfer-Encoding": None, "Content-Length": str(len(b"".join(PIECES)))}
CLOSE = {"Transfer-Encoding": None, "Connection": "close"}


@pytest.mark.parametrize("pieces", [PIECES, [b"".join(PIECES)]], ids=["piecewise", "at once"])
@pytest.mark.parametrize(("headers", "end"), [(LENGTH, ()), (CLOSE, (End.CLOSE,))], ids=["length", "close"])
async def test_an_answer_may_be_framed_in_any_way(
    pieces: list[bytes], headers: dict[str, str | None], end: tuple[Action, ...]
) -> None:
    gates = [asyncio.Event() for _ in pieces]
    actions = [action for piece, gate in zip(pieces, gates, strict=True) for action in (Raw(piece), gate)]
    async with reading(*actions, *end, headers=headers) as (listener, reader):
        for gate, texts in zip(gates[:-1], [(), ("b",), ("b",)], strict=False):
            await reader.until(TextDelta("a"))
            await listener.until(*texts)
            gate.set()
        gates[-1].set()
        await soon(reader.task)
        assert [*reader.parts[:1], *listener.heard, *reader.parts[1:]] == [
            TextDelta("a"), TextDelta("b"), Finished("stop"),
        ]  # fmt: skip


async def test_a_compressed_answer_is_read_all_the_same() -> None:
    """It was not asked for: some proxies do it."""
    whole = gzip.compress(chunk("a") + chunk("b") + finish() + done())
    answer = reply(whole[:20], whole[20:], headers={"Content-Encoding": "gzip"})
    async with playing(answer) as (_, model):
        assert await ask(model) == ([TextDelta("a"), TextDelta("b"), Finished("stop")], None)
