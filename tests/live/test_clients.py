"""Clients that leave, stall and come back: the run goes on, the others notice nothing, and nothing is left over."""

import asyncio
import random
import socket

import httpx
import pytest

from tests.live.checks import check_run, memory, sockets, sockets_fall_to
from tests.live.conftest import Serve
from tests.live.service import PATIENCE, Frame, Service, frames, parse_frame, read_all, text_of
from tests.live.wire import drained, glimpse, reset_on_close, stalled

MESSAGE = "A dozen words that are said one by one, and each has its frame."
EVENTS = len(MESSAGE.split()) + 1
"""Of an answer to the message: its words and its end. A busy machine may merge some."""

MEGABYTE = 2**20


async def leave(client: httpx.AsyncClient, after: int, *, reset: bool) -> tuple[str, list[Frame]]:
    """Start a run and leave when so many frames are there; the run's id and the frames."""
    seen: list[Frame] = []
    async with client.stream("POST", "/chat", json={"message": MESSAGE}) as response:
        if reset:
            reset_on_close(response)
        if after:
            async for frame in frames(response):
                seen.append(frame)
                if len(seen) == after:
                    break
        return response.headers["x-run-id"], seen


async def resume(client: httpx.AsyncClient, run_id: str, seen: list[Frame]) -> list[Frame]:
    """What comes behind the frames that were seen."""
    headers = {"Last-Event-ID": seen[-1].id or ""} if seen else {}
    async with client.stream("GET", f"/runs/{run_id}/events", headers=headers) as response:
        if response.status_code == 204:
            return []
        assert response.status_code == 200, await response.aread()
        opening, *rest = await read_all(response)
    if not seen:
        return [opening, *rest]
    assert opening == Frame(id=seen[-1].id)
    return rest


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_client_that_leaves_at_any_event_resumes_exactly(service: Service, reset: bool) -> None:
    before = sockets(service)
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as client:

        async def leave_and_come_back(after: int) -> tuple[str, list[Frame]]:
            run_id, seen = await leave(client, after, reset=reset)
            return run_id, seen + await resume(client, run_id, seen)

        resumed = await asyncio.gather(*[leave_and_come_back(after) for after in range(EVENTS + 2)])
    for run_id, received in resumed:
        assert received == await service.follow(run_id)
        assert text_of(received) == MESSAGE
        assert (await check_run(service, run_id))["status"] == "completed"
    await sockets_fall_to(service, before)


@pytest.mark.parametrize("kind", ["text", "events"])
async def test_following_from_any_cursor_is_the_suffix_of_the_whole(service: Service, kind: str) -> None:
    run_id = await service.begin(MESSAGE)
    live = await service.follow(run_id, format=kind)
    whole = await service.follow(run_id, format=kind)
    assert live[1:] == whole[1:]
    for cursor in range(len(whole) - 1):
        assert (await service.follow(run_id, cursor, format=kind))[1:] == whole[cursor + 1 :]


async def test_stalled_readers_hold_nobody_up_and_no_memory(serve: Serve) -> None:
    service = await serve(
        STREAM_DELAY="0",
        MAX_MESSAGE_CHARS="9999999",
        MAX_ANSWER_CHARS="9999999",
        MAX_BODY_BYTES="9999999",
        MAX_RUN_TOKENS="9999999",
    )
    text = " ".join(f"{number:0100}" for number in range(20_000))
    run_id = await service.begin(text)
    asleep = [stalled(service, f"/runs/{run_id}/events") for _ in range(25)]  # while it is generated
    whole = await service.follow(run_id)
    before = memory(service)
    asleep += [stalled(service, f"/runs/{run_id}/events") for _ in range(25)]  # and from the store
    try:
        for other in await asyncio.gather(*[service.begin(MESSAGE) for _ in range(10)]):
            assert (await check_run(service, other))["status"] == "completed"
        # Whole, the answer would be there fifty times: 100 MB.
        assert memory(service) - before < 20 * MEGABYTE
        for late in (asleep[0], asleep[-1]):
            async with asyncio.timeout(PATIENCE * 2):
                _, _, body = (await drained(late)).partition(b"\r\n\r\n")
            assert [frame for record in unchunked(body) if (frame := parse_frame(record))] == whole
    finally:
        for connection in asleep:
            connection.close()
    assert text_of(whole) == text
    await check_run(service, run_id)


async def test_a_reader_that_stalls_for_too_long_is_dropped(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0", SEND_TIMEOUT="1", MAX_MESSAGE_CHARS="2000000", MAX_ANSWER_CHARS="2000000")
    run_id = await service.begin(" ".join(f"{number:0100}" for number in range(10_000)))
    await service.ended(run_id)
    before = sockets(service)
    asleep = [stalled(service, f"/runs/{run_id}/events") for _ in range(10)]
    try:
        await service.follow(run_id)  # asked later, answered later: theirs are all accepted
        assert sockets(service) > before
        await sockets_fall_to(service, before)
        for connection in asleep:
            assert len(await whatever_arrived(connection)) < MEGABYTE
    finally:
        for connection in asleep:
            connection.close()
    await check_run(service, run_id)
    assert "unforeseen" not in service.log.read_text()


async def test_a_thousand_reconnects_leave_nothing_behind_and_start_nothing(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.2")
    run_id = await service.begin(" ".join(["word"] * 3_000))
    draw = random.Random(16)

    async def reconnect() -> None:
        cursor = f"{run_id}.{service.rows('SELECT count(*) FROM journal')[0][0]}"
        record = await glimpse(service, f"/runs/{run_id}/events", cursor, reset=draw.random() < 0.5)
        assert parse_frame(record) == Frame(id=cursor)

    async def reconnects(count: int) -> None:
        for _ in range(count):
            await reconnect()

    await asyncio.gather(*[reconnects(20) for _ in range(10)])
    open_before, memory_before = sockets(service), memory(service)
    await asyncio.gather(*[reconnects(100) for _ in range(10)])
    await sockets_fall_to(service, open_before)
    assert memory(service) - memory_before < 8 * MEGABYTE
    assert service.rows("SELECT count(*) FROM runs") == [(1,)]
    assert (await service.client.post(f"/runs/{run_id}/cancel")).json()["status"] == "cancelled"
    await check_run(service, run_id)


def unchunked(body: bytes) -> list[str]:
    """The SSE records in a chunked body."""
    data = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        data += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return data.decode().split("\n\n")


async def whatever_arrived(connection: socket.socket) -> bytes:
    try:
        async with asyncio.timeout(PATIENCE):
            return await drained(connection)
    except ConnectionResetError:
        return b""
