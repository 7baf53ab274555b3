"""Limits where they meet real connections: whose they are, and that every place is given back."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.handlers.test_tokens import SECRET, bearer, signed
from tests.live.checks import until
from tests.live.conftest import Serve
from tests.live.dialogue import dialogue
from tests.live.eventsource import browse, text
from tests.live.service import PATIENCE, Service, text_of
from tests.live.wire import AT_ONCE, stalled
from tests.live.workers import connected, workers
from tests.programs import node_with
from tests.upstream import chunk, done, finish, reply

COUNTED = {"UNLIMITED_ADDRESSES": "0", "REQUEST_RATE": "0", "RUN_RATE": "0", "DAILY_TOKENS": "0"}
"""This machine's clients are counted, and nothing else is limited than what a test says."""


async def has_room(service: Service, run_id: str) -> str:
    """What a stream says, when there is a place for it again."""
    async with asyncio.timeout(PATIENCE):
        while not (told := text_of(await service.follow(run_id))):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return told


@pytest.mark.client("EventSource", "resume")
async def test_eventsource_that_is_sent_away_comes_back_by_itself(tmp_path: Path) -> None:
    gate, node = asyncio.Event(), node_with("eventsource")
    script = reply(chunk("One "), gate, chunk("two."), finish(), done())
    async with dialogue(tmp_path, script, **COUNTED, MAX_CLIENT_STREAMS="1") as (service, _):
        async with service.client.stream("POST", "/chat", json={"message": "Well?"}) as first:
            run_id = first.headers["x-run-id"]
            browsing = asyncio.create_task(browse(node, f"{service.url}/runs/{run_id}/events"))
            # A stream that goes on has no line in the log yet: this is one that was sent away.
            await until(lambda: f'"path": "/runs/{run_id}/events", "status": 200' in service.log.read_text())
        gate.set()
        [told] = await browsing
    assert text(told) == "One two."
    assert [event.name for event in told][:2] == ["open", "lost"]


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_client_that_leaves_gives_its_places_back(tmp_path: Path, reset: bool) -> None:
    gate = asyncio.Event()
    script = reply(chunk("One "), gate, chunk("two."), finish(), done())
    caps = {"MAX_CLIENT_STREAMS": "2", "MAX_STREAMS": "2", "MAX_FOLLOWERS": "2"}
    async with dialogue(tmp_path, script, **COUNTED, **caps) as (service, _):
        run_id = await service.begin("Well?")
        for _ in range(3):
            leaving = [await _admitted(service, run_id) for _ in range(2)]
            assert not text_of(await service.follow(run_id))
            for writer in leaving:
                if reset:
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                writer.close()
        gate.set()
        assert await has_room(service, run_id) == "One two."


async def _admitted(service: Service, run_id: str) -> asyncio.StreamWriter:
    """A connection with a stream, as soon as there is a place for it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(f"GET /runs/{run_id}/events HTTP/1.1\r\nHost: parley\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            if b"id: " in await reader.readuntil(b"\n\n"):
                return writer
            writer.close()
            await asyncio.sleep(0.05)


async def test_a_reader_that_is_dropped_gives_its_place_back(serve: Serve) -> None:
    service = await serve(
        **COUNTED, MAX_CLIENT_STREAMS="1", STREAM_DELAY="0", SEND_TIMEOUT="1",
        MAX_MESSAGE_CHARS="9999999", MAX_ANSWER_CHARS="9999999", MAX_RUN_TOKENS="9999999",
    )  # fmt: skip
    said = " ".join(f"{number:0100}" for number in range(10_000))
    run_id = await service.begin(said)
    await service.ended(run_id)
    with stalled(service, f"/runs/{run_id}/events"):
        assert await has_room(service, run_id) == said


async def test_clients_of_a_proxy_are_those_that_it_names(serve: Serve) -> None:
    service = await serve(REQUEST_RATE="1/hour")
    told = []
    for forwarded in (
        "203.0.113.7",
        "203.0.113.7",
        "198.51.100.1, 203.0.113.7",
        "203.0.113.8",
        "2001:db8::1",
        "2001:db8::2",
    ):
        response = await service.client.get("/sessions", headers={"X-Forwarded-For": forwarded})
        told.append(response.status_code)
    assert told == [200, 429, 429, 200, 200, 429]
    assert [(await service.client.get("/sessions")).status_code for _ in range(3)] == [200] * 3  # this machine's


async def test_a_proxy_that_is_not_believed_is_one_client(serve: Serve) -> None:
    service = await serve(REQUEST_RATE="1/hour", FORWARDED_ALLOW_IPS="192.0.2.1", UNLIMITED_ADDRESSES="0")
    told = [
        (await service.client.get("/sessions", headers={"X-Forwarded-For": f"203.0.113.{number}"})).status_code
        for number in range(3)
    ]
    assert told == [200, 429, 429]


async def test_a_known_user_has_one_budget_with_all_workers(serve: Serve) -> None:
    service = await serve(AUTH="jwt", JWT_SECRET=SECRET, WORKERS="2", DAILY_TOKENS="1", STREAM_DELAY="0")
    first, second = await workers(service, 2)
    asked = {"message": "Hi", "stream": False}
    async with connected(service, first) as here, connected(service, second) as there:
        assert (await here.post("/chat", json=asked, headers=bearer(signed()))).status_code == 200
        for client in (there, here):
            refused = await client.post("/chat", json=asked, headers=bearer(signed()))
            assert (refused.status_code, refused.json()["code"]) == (429, "budget_spent")
            assert refused.json()["used_tokens"] >= 1
        assert (await there.post("/chat", json=asked, headers=bearer(signed(sub="ben")))).status_code == 200
