"""Imports on a real server: followed, resumed, stopped, and gone on with by whoever is left."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.live.conftest import Serve
from tests.live.replicas import replicas
from tests.live.service import PATIENCE, Frame, Service

COUNT = 24

Form = list[tuple[str, tuple[str, bytes, str]]]


def form(count: int = COUNT) -> Form:
    return [("file", (f"{number}.md", f"# Part {number}\n\nTea.".encode(), "text/markdown")) for number in range(count)]


@pytest.fixture(params=["sqlite", "postgres"])
def of_database(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of each database, with nothing in it."""
    if request.param == "sqlite":
        return {}
    return {"DATABASE_URL": request.getfixturevalue("url"), "LEASE_SECONDS": "1"}


@pytest.fixture
async def service(of_database: dict[str, str], serve: Serve) -> Service:
    return await serve(**of_database)


async def begin(service: Service, files: Form) -> str:
    """Start an import and leave it alone; its id."""
    response = await service.client.post("/documents", data={"collection": "box"}, files=files)
    assert response.status_code == 202, response.text
    run_id = response.json()["run_id"]
    assert (response.headers["Location"], response.headers["X-Run-Id"]) == (f"/runs/{run_id}", run_id)
    return str(run_id)


async def seen_until(service: Service, run_id: str, after: int, documents: int) -> list[Frame]:
    """The frames behind the cursor, until so many files of all are done."""
    seen: list[Frame] = []
    headers = {"Last-Event-ID": f"{run_id}.{after}"}
    address = f"/runs/{run_id}/events?format=events"
    async with service.stream("GET", address, headers=headers) as stream, asyncio.timeout(PATIENCE * 2):
        async for frame in stream:
            if frame.event not in (None, "run.started"):
                seen.append(frame)
                if frame.event == "import.document" and member(frame, "done") >= documents:
                    return seen
    return seen


def member(frame: Frame, name: str) -> int:
    assert frame.data is not None
    return int(json.loads(frame.data)[name])


async def whole(service: Service, run_id: str) -> list[Frame]:
    """The run's log, which lacks nothing."""
    async with asyncio.timeout(PATIENCE * 3):
        while True:  # a stream may end before its run, which goes on elsewhere
            frames = [frame for frame in await service.follow(run_id, format="events") if frame.event is not None]
            if frames[-1].event == "run.completed":
                break
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    return frames[1:]


async def titles(service: Service) -> list[str]:
    documents = (await service.client.get("/documents?limit=200")).json()["documents"]
    return [document["title"] for document in reversed(documents)]


async def hold(service: Service, run_id: str, frames: Sequence[Frame], count: int = COUNT) -> None:
    """Each file is there once, and told of once, in order."""
    names = [f"{number}.md" for number in range(count)]
    told = [json.loads(frame.data or "") for frame in frames if frame.event == "import.document"]
    assert [one["file"] for one in told] == names
    assert [one["done"] for one in told] == list(range(1, count + 1))
    assert await titles(service) == names
    listed = {one["document_id"] for one in (await service.client.get("/documents?limit=200")).json()["documents"]}
    assert {one["document"] for one in told} == listed
    run = (await service.client.get(f"/runs/{run_id}")).json()
    assert (run["kind"], run["status"], run["last_event"]) == ("import", "completed", "run.completed")
    assert (await service.client.get("/sessions")).json()["sessions"] == []


async def test_killed_import_goes_on_where_it_was(service: Service) -> None:
    run_id = await begin(service, form())
    seen: list[Frame] = []
    for documents in (1, 5, 6, 12):
        seen += await seen_until(service, run_id, len(seen), documents)
        await service.restart()
    frames = await whole(service, run_id)
    assert frames[: len(seen)] == seen
    assert 1 <= [frame.event for frame in frames].count("seam") <= 4
    await hold(service, run_id, frames)


async def test_import_is_followed_at_once_and_resumed_behind_any_event(service: Service) -> None:
    headers = {"Accept": "text/event-stream"}
    arguments = {"data": {"collection": "box"}, "files": form(3), "headers": headers}
    async with service.stream("POST", "/documents", **arguments) as stream:
        frames = [frame async for frame in stream if frame.event is not None]
    assert [frame.event for frame in frames] == [
        "run.started", "import.started", *["import.document"] * 3, "run.completed",
    ]  # fmt: skip
    run_id = str(frames[0].id).partition(".")[0]
    await hold(service, run_id, frames, 3)
    for after in range(5):
        behind = await service.follow(run_id, after, format="events")
        assert [frame for frame in behind if frame.event != "run.started"] == frames[after + 1 :]


async def test_stopped_import_keeps_what_is_done(service: Service) -> None:
    run_id = await begin(service, form())
    await seen_until(service, run_id, 0, 2)
    cancelled = (await service.client.post(f"/runs/{run_id}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    log = await service.follow(run_id, format="events")
    told = [json.loads(frame.data or "")["file"] for frame in log if frame.event == "import.document"]
    assert log[-1].event == "run.cancelled"
    assert 2 <= len(told) < COUNT
    assert await titles(service) == told == [f"{number}.md" for number in range(len(told))]


async def test_another_replica_goes_on_with_the_import_of_one_that_dies(serve: Serve, tmp_path: Path, url: str) -> None:
    async with replicas(serve, tmp_path, url, LEASE_SECONDS="1") as everyone:
        run_id = await begin(everyone.front, form())
        seen = await seen_until(everyone.front, run_id, 0, 3)
        await (await everyone.generating(run_id)).kill()
        frames = await whole(everyone.front, run_id)
        assert frames[: len(seen)] == seen
        assert [frame.event for frame in frames].count("seam") == 1
        await hold(everyone.front, run_id, frames)


async def test_another_replica_goes_on_with_the_import_of_one_that_stops(
    serve: Serve, tmp_path: Path, url: str
) -> None:
    async with replicas(serve, tmp_path, url, LEASE_SECONDS="600", DRAIN_SECONDS="0") as everyone:
        run_id = await begin(everyone.front, form())
        seen = await seen_until(everyone.front, run_id, 0, 3)
        await (await everyone.generating(run_id)).terminate()
        frames = await whole(everyone.front, run_id)
        assert frames[: len(seen)] == seen
        assert [frame.event for frame in frames].count("seam") == 1
        await hold(everyone.front, run_id, frames)
