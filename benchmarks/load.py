"""The readers, in a process of their own: many open streams, every token's age, and when the first bytes came.

Prints JSON lines: ``{"event": "open"}`` when every stream has its first token, and ``{"event": "done", ...}`` with what
arrived when ``--seconds`` have passed. Whoever started it reads the server's CPU time at both. Then, while the streams
go on, ``--probes`` more requests ask how long a first frame takes at this load: ``{"event": "probed", ...}``.

With ``--drain`` all streams are read to their ends instead, however long that takes; with ``--requests`` that many
short answers, a few at a time.
"""

import argparse
import asyncio
import json
from array import array
from collections.abc import Sequence
from typing import cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.tokens import MARK, age_us, now_us

KEY = "sk-a-key-that-only-benchmarks-use-0123456789"
"""What is sent as the bearer's: some servers do not start without one."""

PATIENCE = 60.0
"""Seconds after which an idle server that was asked is taken as not answering."""

GRACE = 8.0
"""Seconds that the last streams get to their first token; it is measured without them then: the server is overloaded,
and it would not become better."""

DRAINED = 150.0
"""Seconds until the last stream has to be at its end."""

AT_ONCE = 8
"""Short requests that are under way together."""

PROBE_PAUSE = 0.02
"""Seconds between the requests for first frames: they must not become a load themselves."""


class Reader(asyncio.Protocol):
    """One connection with one request."""

    def __init__(self, load: "Load", first_frames: "array[int]") -> None:
        self._load = load
        self._first_frames = first_frames
        self._head: bytes | None = b""
        self._rest = b""
        loop = asyncio.get_running_loop()
        self.heard: asyncio.Future[None] = loop.create_future()
        """Done when the first token is there; failed if it cannot come any more."""
        self.closed: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._asked = now_us()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        now = now_us()
        if self._head is not None:
            self._head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                return
            if not self._head.startswith(b"HTTP/1.1 200"):
                self._fail(self._head + b" " + data)
            if not data:
                self._head += end
                return
            self._head = None
            self._first_frames.append(now - self._asked)
        data = self._rest + data
        self._rest = data[-8:] if b"@" in data[-8:] else b""  # a token may be cut
        if marks := MARK.findall(data):
            if not self.heard.done():
                self.heard.set_result(None)
            self._load.hear(marks, now)

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail(b"closed before the first token")
        self.closed.set_result(None)

    def _fail(self, why: bytes) -> None:
        if not self.heard.done():
            self.heard.set_exception(RuntimeError(why[:2000].decode(errors="replace")))


class Load:
    def __init__(self, url: str, body: str) -> None:
        parts = urlsplit(url)
        self.request = request(url, body)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._ages = array("q")
        self._measuring = False

    def hear(self, marks: list[bytes], now: int) -> None:
        if self._measuring:
            self._ages.extend([age_us(mark, now) for mark in marks])

    async def open(self, count: int, pause: float, grace: float = GRACE) -> "array[int]":
        """Open streams, one every ``pause`` seconds; the microseconds to the first byte of those that had one.

        Returns when each has its first token, or after ``grace`` seconds.

        Raises:
            RuntimeError: what the server answered instead of a stream.
        """
        first_frames = array("q")
        readers = await self._connect(count, pause, first_frames)
        heard = [reader.heard for reader in readers]
        done, _ = await asyncio.wait(heard, timeout=grace, return_when=asyncio.FIRST_EXCEPTION)
        for reader in done:
            reader.result()
        return first_frames

    async def drain(self, count: int, pause: float) -> int:
        """Open streams and read them to their ends; the tokens that came.

        Raises:
            TimeoutError: some stream has not ended yet.
        """
        self._measuring = True
        readers = await self._connect(count, pause, array("q"))
        async with asyncio.timeout(DRAINED):
            for reader in readers:
                await reader.heard
                await reader.closed
        return len(self._ages)

    async def _connect(self, count: int, pause: float, first_frames: "array[int]") -> Sequence[Reader]:
        loop = asyncio.get_running_loop()
        readers = []
        for _ in range(count):
            _, reader = await loop.create_connection(lambda: Reader(self, first_frames), *self._address)
            readers.append(reader)
            await asyncio.sleep(pause)
        return readers

    async def measure(self, seconds: float) -> "array[int]":
        self._measuring = True
        await asyncio.sleep(seconds)
        self._measuring = False
        return self._ages

    async def ask(self, count: int) -> None:
        """Make requests one after the other, each read until the server closes the connection."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            async with asyncio.timeout(PATIENCE):
                _, reader = await loop.create_connection(lambda: Reader(self, array("q")), *self._address)
                await reader.heard
                await reader.closed


def request(url: str, body: str) -> bytes:
    parts = urlsplit(url)
    content = body.encode()
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return (
        f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Accept: text/event-stream\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


def percentiles(values: "array[int]") -> dict[str, float]:
    """Milliseconds; of nothing, nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)] / 1000, 2) for p in (50, 95, 99)}


def say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


async def stream(load: Load, arguments: argparse.Namespace) -> None:
    first_frames = await load.open(arguments.streams, arguments.spread / arguments.streams)
    say("open")
    ages = await load.measure(arguments.seconds)
    say("done", tokens=len(ages), latency=percentiles(ages), first_frame=percentiles(first_frames))
    if arguments.probes:
        found = await load.open(arguments.probes, PROBE_PAUSE)
        never = array("q", [int(GRACE * 1e6)] * (arguments.probes - len(found)))
        say("probed", first_frame=percentiles(found + never))


async def ask(load: Load, requests: int) -> None:
    await asyncio.gather(*(load.ask(requests // AT_ONCE) for _ in range(AT_ONCE)))
    say("done", requests=requests // AT_ONCE * AT_ONCE)


async def run(arguments: argparse.Namespace) -> None:
    load = Load(arguments.url, arguments.body)
    if arguments.requests:
        await ask(load, arguments.requests)
    elif arguments.drain:
        tokens = await load.drain(arguments.streams, arguments.spread / arguments.streams)
        say("done", tokens=tokens)
    else:
        await stream(load, arguments)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--body", default='{"message": "Hello"}')
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5, help="how long is measured once all streams are open")
    parser.add_argument("--spread", type=float, default=2, help="seconds over which the streams are opened")
    parser.add_argument("--probes", type=int, default=0, help="requests for a first frame once that is measured")
    parser.add_argument("--drain", action="store_true", help="read all streams to their ends")
    parser.add_argument("--requests", type=int, default=0, help="short answers to read instead of streams")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
