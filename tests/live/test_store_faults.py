"""A disk that is full, and a database that another process has locked: nothing unstored is shown, and it passes."""

import asyncio
import errno
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.live.checks import settled
from tests.live.dialogue import PROMPT, ask, dialogue, ends_in_trouble, following
from tests.live.service import PATIENCE, Service, text_of
from tests.upstream import End, chunk, completion, done, finish, reply


class SmallDisk:
    """A file system of two megabytes."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "parley.db"
        self._ballast = folder / "ballast"

    def fill(self, _: Service) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self, _: Service) -> None:
        self._ballast.unlink()


class Quota:
    """A limit on how large a file of the process may grow, where it writes: EFBIG instead of ENOSPC."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "parley.db"

    def fill(self, service: Service) -> None:
        size = self.database.with_name("parley.db-wal").stat().st_size
        assert service.log.stat().st_size < size  # the log is a file as well, and is not to suffer
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def free(self, service: Service) -> None:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


Disk = SmallDisk | Quota


@contextmanager
def mounted(folder: Path) -> Iterator[SmallDisk]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mount = subprocess.run(command, capture_output=True, text=True, check=False)
    if mount.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {mount.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["small disk", "quota"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "quota":
        yield Quota(tmp_path)
        return
    with mounted(tmp_path / "disk") as small:
        yield small


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database's write lock, as another process."""
    connection = sqlite3.connect(database, isolation_level=None, timeout=PATIENCE)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


async def refused(service: Service, **more: object) -> None:
    response = await service.client.post("/chat", json={"message": PROMPT, **more})
    check_refused(response)


def check_refused(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["content-type"] == "application/problem+json"


async def reads_go_on(service: Service, session_id: str, run_id: str) -> None:
    for path in ("/health", "/sessions", f"/sessions/{session_id}", f"/runs/{run_id}"):
        assert (await service.client.get(path)).status_code == 200, path
    history = (await service.client.get(f"/sessions/{session_id}/messages")).json()["messages"]
    assert history[-1]["content"] == PROMPT


async def test_a_full_disk_stops_the_answer_and_settles_it_when_there_is_room_again(tmp_path: Path, disk: Disk) -> None:
    gate = asyncio.Event()
    replies = reply(chunk("Hello "), gate, chunk("world"), End.HOLD), completion("Again")
    settings = {"DATABASE_URL": f"sqlite:///{disk.database}", "REQUEST_TIMEOUT": "600"}
    async with dialogue(tmp_path, *replies, **settings) as (service, upstream):
        async with following(service, session_id="ses_1") as (received, run_id, seen):
            disk.fill(service)
            gate.set()
            await ends_in_trouble(received, "store_unavailable")
        await asyncio.wait_for(upstream.requests[0].closed.wait(), PATIENCE)
        await refused(service)
        await refused(service, session_id="ses_1", on_busy="queue")
        await reads_go_on(service, "ses_1", run_id)
        assert [frame.event for frame in (await service.follow(run_id, seen))[1:]] == ["stream.error", None]
        disk.free(service)
        run = await settled(service, run_id)
        assert (run["status"], run["error"]["code"], run["error"]["retryable"]) == ("failed", "store_unavailable", True)
        assert await service.answer(run_id) == "Hello world"
        rest = await service.follow(run_id, seen)
        assert text_of(rest) == "world"
        assert [frame.seq for frame in rest] == [seen, seen + 1, seen + 2]
        again, frames = await ask(service, session_id="ses_1")
        assert (await settled(service, again))["status"] == "completed"
        assert text_of(frames) == "Again"


async def test_an_answer_that_ends_on_a_full_disk_is_complete_when_there_is_room_again(
    tmp_path: Path, disk: Disk
) -> None:
    gate = asyncio.Event()
    replies = (reply(chunk("Hello"), gate, finish(), done()),)
    async with dialogue(tmp_path, *replies, DATABASE_URL=f"sqlite:///{disk.database}") as (service, _):
        async with following(service) as (received, run_id, seen):
            disk.fill(service)
            gate.set()
            await ends_in_trouble(received, "store_unavailable")
        assert (await service.client.get(f"/runs/{run_id}")).json()["status"] == "running"
        disk.free(service)
        assert (await settled(service, run_id))["status"] == "completed"
        assert [frame.data for frame in await service.follow(run_id, seen)] == [None, "[DONE]"]


async def test_what_a_full_disk_refused_has_left_nothing_behind(tmp_path: Path, disk: Disk) -> None:
    settings = {"DATABASE_URL": f"sqlite:///{disk.database}"}
    async with dialogue(tmp_path, completion("Hello"), **settings) as (service, upstream):
        await ask(service, session_id="ses_1")
        disk.fill(service)
        key = {"Idempotency-Key": "once"}
        for body in ({"session_id": "ses_1"}, {"session_id": "ses_2"}):
            check_refused(await service.client.post("/chat", json={"message": PROMPT, **body}, headers=key))
        check_refused(await service.client.post("/sessions", json={"session_id": "ses_3"}))
        check_refused(await service.client.patch("/sessions/ses_1", json={"title": "Never"}))
        check_refused(await service.client.delete("/sessions/ses_1"))
        disk.free(service)
        [session] = (await service.client.get("/sessions")).json()["sessions"]
        assert (session["session_id"], session["title"], session["message_count"]) == ("ses_1", None, 2)
        assert len(upstream.requests) == 1
        answer = await service.client.post(
            "/chat", json={"message": PROMPT, "session_id": "ses_2", "stream": False}, headers=key
        )
        assert (answer.status_code, answer.json()["answer"]) == (200, "Hello")
        assert "idempotency-replayed" not in answer.headers


async def test_many_answers_that_a_full_disk_stopped_are_all_settled(tmp_path: Path) -> None:
    disk, gate, many = Quota(tmp_path), asyncio.Event(), 8
    stopped = reply(chunk("Hello "), gate, chunk("world"), End.HOLD)
    async with dialogue(tmp_path, stopped) as (service, upstream):
        async with AsyncExitStack() as open_streams:
            streams = [await open_streams.enter_async_context(following(service)) for _ in range(many)]
            disk.fill(service)
            gate.set()
            await asyncio.gather(*[ends_in_trouble(received, "store_unavailable") for received, *_ in streams])
        disk.free(service)
        for number, (_, run_id, _) in enumerate(streams):
            assert (await settled(service, run_id))["status"] == "failed"
            assert await service.answer(run_id) == "Hello world"
            await asyncio.wait_for(upstream.requests[number].closed.wait(), PATIENCE)


async def test_a_process_killed_on_a_full_disk_leaves_its_run_to_the_next(tmp_path: Path) -> None:
    gate = asyncio.Event()
    replies = reply(chunk("Hello "), gate, chunk("lost"), End.HOLD), completion("world")
    with mounted(tmp_path / "disk") as disk:
        settings = {"DATABASE_URL": f"sqlite:///{disk.database}"}
        async with dialogue(tmp_path, *replies, **settings) as (service, _):
            async with following(service) as (received, run_id, _):
                disk.fill(service)
                gate.set()
                await ends_in_trouble(received, "store_unavailable")
            await service.kill()
            await service.start(ready=False)
            await refused(service)
            disk.free(service)
            await until_ready(service)
            assert (await settled(service, run_id))["status"] == "completed"
            assert await service.answer(run_id) == "Hello world"


async def test_a_short_lock_of_another_process_delays_an_answer_and_loses_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    replies = (reply(chunk("Hello "), gate, chunk("world"), finish(), done()),)
    async with dialogue(tmp_path, *replies) as (service, _):
        async with following(service) as (received, run_id, _):
            with locked(service.database):
                gate.set()
                await reads_go_on(service, session_of(await service.client.get(f"/runs/{run_id}")), run_id)
            rest = [frame async for frame in received]
        assert [frame.data for frame in rest if frame.data] == ["world", "[DONE]"]
        assert (await settled(service, run_id))["status"] == "completed"


def session_of(response: httpx.Response) -> str:
    return str(response.json()["session_id"])


async def test_a_lock_that_stays_refuses_writes_in_time_and_lets_reads_go_on(tmp_path: Path) -> None:
    gate = asyncio.Event()
    replies = reply(chunk("Hello "), gate, chunk("world"), End.HOLD), completion("Again")
    async with dialogue(tmp_path, *replies, REQUEST_TIMEOUT="600") as (service, upstream):
        async with following(service, session_id="ses_1") as (received, run_id, seen):
            with locked(service.database):
                gate.set()
                # Many at once: none waits for all the others' turns. The client's patience is the bound.
                waiting = asyncio.gather(*[refused(service, session_id=f"ses_{number}") for number in range(2, 10)])
                await reads_go_on(service, "ses_1", run_id)
                await waiting
                await ends_in_trouble(received, "store_unavailable")
                await asyncio.wait_for(upstream.requests[0].closed.wait(), PATIENCE)
                await reads_go_on(service, "ses_1", run_id)
        run = await settled(service, run_id)
        assert (run["status"], run["error"]["code"]) == ("failed", "store_unavailable")
        assert text_of(await service.follow(run_id, seen)) == "world"
        assert [each["session_id"] for each in (await service.client.get("/sessions")).json()["sessions"]] == ["ses_1"]
        again, frames = await ask(service, session_id="ses_1")
        assert (await settled(service, again))["status"] == "completed"
        assert text_of(frames) == "Again"


async def test_a_service_that_starts_behind_a_lock_is_ready_when_it_is_gone(tmp_path: Path) -> None:
    async with dialogue(tmp_path, completion("Hello")) as (service, _):
        run_id, _ = await ask(service)
        await service.kill()
        with locked(service.database):
            await service.start(ready=False)
            response = await service.client.get("/ready")
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            await refused(service)
        await until_ready(service)
        assert (await settled(service, run_id))["status"] == "completed"


async def until_ready(service: Service) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await service.client.get("/ready")).is_error:
            pass
