"""Clients that are slow on purpose: each is shown out in its time, and a thousand of them keep nobody out."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import httpx
import pytest

from handlers.headers import GUARDS
from tests.live.checks import check_run
from tests.live.conftest import Serve
from tests.live.nursery import SERVER
from tests.live.service import PATIENCE, Service, text_of
from tests.live.wire import stalled

POST = b"POST /chat HTTP/1.1\r\nHost: parley\r\nContent-Type: application/json\r\n"
GUARDED = b"".join([b"%b: %b\r\n" % guard for guard in GUARDS])
REFUSED = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n%b\r\n" % GUARDED
LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n%b\r\n" % GUARDED
GET = b"GET /health HTTP/1.1\r\nHost: parley\r\n\r\n"

CROWD = 1_000


class Caller:
    """A connection on which a test says what it wants, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, text: bytes) -> None:
        self.writer.write(text)
        with suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> int:
        """The status of a whole answer."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await self.reader.readexactly(length)
            return int(head.split()[1])

    async def shown_out(self) -> bytes:
        """All that comes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


async def call(stack: AsyncExitStack, service: Service, *words: bytes) -> Caller:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    stack.callback(writer.close)
    caller = Caller(reader, writer)
    for word in words:
        await caller.say(word)
    return caller


async def test_a_head_that_does_not_arrive_is_not_waited_for(serve: Serve) -> None:
    service = await serve(HEADER_SECONDS="0.5", BODY_SECONDS="600")
    async with AsyncExitStack() as stack:
        silent = await call(stack, service)
        for said in (b"G", b"GET /health HTTP/1.1\r\n", GET[:-2], GET + b"GET /hea"):
            caller = await call(stack, service, said)
            received = await caller.shown_out()
            assert received.endswith(LATE)
            assert received.startswith(b"HTTP/1.1 200") is said.startswith(GET)
        assert await silent.shown_out() == b""
        assert (await service.client.get("/health")).status_code == 200


async def test_bytes_that_are_no_request_buy_no_time(serve: Serve) -> None:
    service = await serve(HEADER_SECONDS="0.5")
    async with AsyncExitStack() as stack:
        caller = await call(stack, service, GET)
        assert await caller.answer() == 200
        await caller.say(b"\r\n")  # ends uvicorn's keep-alive, and begins nothing
        assert await caller.shown_out() == LATE


async def test_what_is_no_http_is_told_so(service: Service) -> None:
    async with AsyncExitStack() as stack:
        for said in (b"GET / HTTP/1.1\r\nno header\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"<script>\r\n\r\n"):
            received = await (await call(stack, service, said)).shown_out()
            head, _, text = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert head.endswith(b"content-type: text/plain; charset=utf-8\r\n" + GUARDED.rstrip())
            assert text == b"Invalid HTTP request received."
            assert b"content-length: %d\r\n" % len(text) in head


@pytest.mark.parametrize("how", [b"Content-Length: 40\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
async def test_a_body_that_does_not_arrive_is_not_waited_for(serve: Serve, how: bytes) -> None:
    service = await serve(HEADER_SECONDS="600", BODY_SECONDS="0.5")
    async with AsyncExitStack() as stack:
        caller = await call(stack, service, POST + how)
        assert (await caller.shown_out()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        ignored = await call(stack, service, POST.replace(b"/chat", b"/nowhere") + how)
        answered = await ignored.shown_out()  # at once, and its body is not waited for either
        assert answered.startswith(b"HTTP/1.1 404")
        assert b"408" not in answered
    assert service.rows("SELECT count(*) FROM runs") == [(0,)]
    log = service.log.read_text()
    assert "shown out" in log
    assert "unforeseen" not in log


async def test_a_client_that_is_slow_in_time_is_served(service: Service) -> None:
    body = b'{"message": "Piece by piece."}'
    async with AsyncExitStack() as stack:
        caller = await call(stack, service)
        for piece in (
            *POST.partition(b"Host"),
            b"Connection: close\r\n",
            b"Content-Length: %d\r\n" % len(body),
            b"\r\n",
        ):
            await caller.say(piece)
            assert (await service.client.get("/health")).status_code == 200
        for byte in body:
            await caller.say(bytes([byte]))
        assert b"data: Piece \n" in await caller.shown_out()


@pytest.mark.parametrize(
    "said",
    [b"GET /" + b"a" * 70_000, GET[:-2] + b"X: " + b"a" * 70_000, GET[:-2] + b"X: a\r\n" * 20_000],
    ids=["url", "header", "headers"],
)
async def test_a_head_without_end_is_refused(service: Service, said: bytes) -> None:
    async with AsyncExitStack() as stack:
        caller = await call(stack, service, said)
        assert (await caller.shown_out()).startswith(b"HTTP/1.1 431 ")
    assert (await service.client.get("/health")).status_code == 200


@pytest.mark.parametrize("endless", [b"1\r\n{\r\n0\r\nX: ", b"1;"], ids=["trailer", "chunk extension"])
async def test_what_has_no_end_in_a_body_is_not_listened_to(serve: Serve, endless: bytes) -> None:
    service = await serve(BODY_SECONDS="600")
    async with AsyncExitStack() as stack:
        caller = await call(stack, service, POST + b"Transfer-Encoding: chunked\r\n\r\n" + endless, b"a" * 1_000_000)
        assert await caller.shown_out() in (b"", REFUSED)  # a client that goes on talking may not hear it
    assert (await service.client.get("/health")).status_code == 200


async def test_a_large_body_in_small_chunks_is_no_head_without_end(service: Service) -> None:
    text = "x" * 20_000
    body = f'{{"message": "{text}", "stream": false}}'.encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    response = await service.client.post("/chat", content=pieces(), headers={"Content-Type": "application/json"})
    assert response.json()["answer"] == text


async def test_a_thousand_half_requests_keep_nobody_out(serve: Serve) -> None:
    service = await serve()
    await service.kill()
    # Fewer descriptors than callers, and so much time that only a newcomer can end a caller's turn.
    service.settings |= {"HEADER_SECONDS": "600"}
    service.command = ["sh", "-c", f"ulimit -n 600 && exec {sys.executable} {SERVER}"]
    await service.start()
    async with AsyncExitStack() as stack:
        callers = [await call(stack, service, GET[:-2]) for _ in range(CROWD)]
        for _ in range(3):
            run_id = await service.begin("Is anybody there?")
            assert (await check_run(service, run_id))["status"] == "completed"
        assert (await callers[0].shown_out()).startswith(b"HTTP/1.1 408")
        await callers[-1].say(b"\r\n")
        assert await callers[-1].answer() == 200  # who came last has its place still


async def test_a_thousand_stalled_readers_leave_the_service_answering(serve: Serve) -> None:
    service = await serve(
        STREAM_DELAY="0", MAX_MESSAGE_CHARS="9999999", MAX_ANSWER_CHARS="9999999", MAX_RUN_TOKENS="9999999",
        MAX_REPLAYS="0", MAX_FOLLOWERS="0",
    )  # fmt: skip
    text = " ".join(f"{number:0100}" for number in range(5_000))
    run_id = await service.begin(text)
    await service.ended(run_id)
    asleep = [stalled(service, f"/runs/{run_id}/events") for _ in range(CROWD)]
    try:
        async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as other:
            response = await other.post("/chat", json={"message": "Is anybody there?", "stream": False})
            assert response.json()["answer"] == "Is anybody there?"
            assert (await other.get("/health")).status_code == 200
        assert text_of(await service.follow(run_id)) == text
    finally:
        for connection in asleep:
            connection.close()
