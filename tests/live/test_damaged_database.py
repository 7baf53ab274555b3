"""A database file that is damaged: the service says so, writes nothing any more, and leaves it to its operator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.live.checks import settled, until
from tests.live.dialogue import COMPLAINTS, PROMPT, ask, dialogue, ends_in_trouble, following
from tests.live.service import PATIENCE, Service
from tests.upstream import End, chunk, completion, reply

PAGE = 4096

LONG = "canary " * 3_000
"""A message of several pages."""


def files(service: Service) -> dict[str, bytes]:
    """What there is in the database and its WAL; the index beside them is made anew by everybody who looks."""
    found = service.database, service.database.with_name("parley.db-wal")
    return {file.name: content for file in found if file.exists() and (content := file.read_bytes())}


def damage(service: Service) -> None:
    """Overwrite the pages on which the long messages stand."""
    content = bytearray(service.database.read_bytes())
    pages = [at for at in range(PAGE, len(content), PAGE) if b"canary canary" in content[at : at + PAGE]]
    assert pages  # in the file, and not only in its WAL
    with service.database.open("r+b") as file:
        for at in pages:
            file.seek(at)
            file.write(b"\xa5" * PAGE)


async def with_long_messages(service: Service) -> None:
    """Leave nothing of them in memory or in the WAL: the next process has to read them from the file."""
    for _ in range(5):
        await ask(service, LONG, session_id="ses_1")
    await service.terminate()


def check_corrupt(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "store_corrupt")
    assert "sqlite" not in response.text.lower()


async def is_out_of_order(service: Service) -> None:
    """It lives, it is not ready, and takes nothing on."""
    assert (await service.client.get("/health")).status_code == 200
    for path in ("/ready", "/sessions", "/sessions/ses_1/messages", "/runs/run_1", "/runs/run_1/events"):
        check_corrupt(await service.client.get(path))
    for path, body in (("/chat", {"message": PROMPT}), ("/query", {"prompt": PROMPT}), ("/sessions", {})):
        check_corrupt(await service.client.post(path, json=body))


@asynccontextmanager
async def left_alone(service: Service) -> AsyncIterator[None]:
    """Inside nothing is written to the files, nor when the service stops in the end."""
    before = files(service)
    yield
    assert files(service) == before
    await service.terminate()
    assert files(service) == before
    log = service.log.read_text()
    assert not [complaint for complaint in COMPLAINTS if complaint in log], log


async def check_start(service: Service) -> None:
    said = len(service.log.read_bytes()) if service.log.exists() else 0
    async with left_alone(service):
        await service.start(ready=False)
        await until(lambda: b"The database is damaged" in service.log.read_bytes()[said:])
        await is_out_of_order(service)


async def test_a_damaged_file_is_found_at_the_start_and_left_alone(tmp_path: Path) -> None:
    async with Service(tmp_path, STREAM_DELAY="0") as service:
        await with_long_messages(service)
        damage(service)
        await check_start(service)


async def test_the_wal_of_a_damaged_file_is_left_alone_as_well(tmp_path: Path) -> None:
    async with Service(tmp_path, STREAM_DELAY="0") as service:
        await with_long_messages(service)
        await service.start()
        await ask(service, "Only the WAL has this.")
        await service.kill()
        assert b"Only the WAL has this." in files(service)["parley.db-wal"]
        damage(service)
        await check_start(service)


@pytest.mark.parametrize("content", [b"Dear diary,\n" * 1_000, b"SQLite format 3\0" + b"\xff" * 8_000, bytes(PAGE)])
async def test_a_file_that_is_no_database_is_not_made_one(tmp_path: Path, content: bytes) -> None:
    service = Service(tmp_path)
    service.database.write_bytes(content)
    try:
        await check_start(service)
    finally:
        await service.client.aclose()
        await service.kill()
    assert service.database.read_bytes() == content


async def test_damage_that_comes_to_light_later_stops_answers_which_go_on_from_a_good_copy(tmp_path: Path) -> None:
    gate = asyncio.Event()
    whole = [completion("Hello")] * 5
    replies = *whole, reply(chunk("Hello "), gate, chunk("lost"), End.HOLD), completion("world")
    async with dialogue(tmp_path, *replies, REQUEST_TIMEOUT="600", SUMMARIES="false") as (service, upstream):
        await with_long_messages(service)
        await service.start()
        async with following(service, session_id="ses_2") as (received, run_id, _):
            good = service.database.read_bytes()
            damage(service)
            check_corrupt(await service.client.get("/sessions/ses_1/messages"))
            async with left_alone(service):
                gate.set()
                await ends_in_trouble(received, "store_corrupt")
                await asyncio.wait_for(upstream.requests[5].closed.wait(), PATIENCE)
                await is_out_of_order(service)
        service.database.write_bytes(good)  # and the WAL goes with it
        await service.start()
        assert (await settled(service, run_id))["status"] == "completed"
        assert await service.answer(run_id) == "Hello world"
        history = (await service.client.get("/sessions/ses_1/messages")).json()["messages"]
        assert [message["content"] for message in history] == [LONG, "Hello"] * 5
