"""A PostgreSQL that crashes, loses power, or cannot sync: what was seen stays as it was."""

import asyncio
import random
import re
import shutil
from pathlib import Path

import pytest

from tests.live.checks import check_run, settled, until
from tests.live.cluster import Cluster
from tests.live.conftest import Serve
from tests.live.replicas import all_see, said_twice, started
from tests.live.service import PATIENCE, Frame, text_of
from tests.live.strace import traced
from tests.live.witness import Witness
from tests.postgres import rows
from tests.upstream import Upstream, chunk, done, finish, reply

MESSAGE = "A dozen words or more that have to be on the disk before anybody sees them."
CLIENTS = 6


@pytest.mark.parametrize("mode", ["immediate", "fast"], ids=["crashes", "restarts"])
async def test_answers_go_on_when_the_database_crashes_or_restarts(serve: Serve, postgres: Cluster, mode: str) -> None:
    services, _ = await started(serve, postgres.url, 2, STREAM_DELAY="0.1", LEASE_SECONDS="60")
    witnesses = [Witness(services[number % 2], random.Random(number)) for number in range(CLIENTS)]
    asking = [asyncio.create_task(one.ask(message=f"{MESSAGE} {MESSAGE} {MESSAGE}")) for one in witnesses]
    await until(lambda: all_see(witnesses))
    for _ in range(2):
        await postgres.stop(mode)
        await postgres.start()
        for service in services:
            await service.until_up()
    accounts = await asyncio.gather(*asking)
    for account in accounts:
        assert text_of(account.seen) == account.body["message"]
        for service in services:
            assert account.seen == (await service.follow(account.run_id))[1:]
        assert (await check_run(services[0], account.run_id))["status"] == "completed"
    assert await rows(postgres.url, "SELECT count(*), max(epoch) FROM runs") == [(CLIENTS, 1)]
    assert await said_twice(postgres.url) == []


async def test_nothing_that_was_shown_is_lost_with_a_database_that_crashes_under_a_service_that_dies(
    serve: Serve, postgres: Cluster
) -> None:
    """Nobody is left who could say it once more."""
    [service], _ = await started(serve, postgres.url, 1, STREAM_DELAY="0.02", LEASE_SECONDS="1")
    run_id = await service.begin(" ".join([MESSAGE] * 10))
    async with service.stream("GET", f"/runs/{run_id}/events") as stream, asyncio.timeout(PATIENCE):
        seen = [await anext(stream) for _ in range(30)]
        await postgres.stop("immediate")
        await service.kill()
    await postgres.start()
    await service.start()
    rest = await service.follow(run_id, seen[-1].seq)
    assert text_of(seen + rest) == " ".join([MESSAGE] * 10)
    assert await said_twice(postgres.url) == []
    await check_run(service, run_id)


async def test_follower_falls_back_to_polling_when_the_listening_connection_is_lost(serve: Serve, url: str) -> None:
    gates = [asyncio.Event() for _ in range(4)]
    script = [part for number, gate in enumerate(gates) for part in (chunk(f"{number} "), gate)]
    async with Upstream(reply(*script, finish(), done())) as upstream:
        [own, other], _ = await started(serve, url, 2, BASE_URL=upstream.base_url, OPENAI_API_KEY="none")
        run_id = await own.begin(MESSAGE)
        async with other.stream("GET", f"/runs/{run_id}/events") as stream, asyncio.timeout(PATIENCE):
            assert await anext(stream) == Frame(id=f"{run_id}.0")
            for number, gate in enumerate(gates):
                assert await anext(stream) == Frame(id=f"{run_id}.{number + 1}", data=f"{number} ")
                cut = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                         WHERE datname = current_database() AND query ILIKE 'LISTEN%'"""
                assert all(killed for (killed,) in await rows(url, cut))
                gate.set()
            assert [frame.data async for frame in stream] == ["[DONE]"]
        assert "the connection was lost" not in own.log.read_text()  # no other was cut
        await check_run(other, run_id)


# --- the disk

WAL_WRITE = re.compile(r"pwrite64\(\d+<[^>]*/pg_wal/([0-9A-F]{24})>, .*, (\d+), (\d+)(?:\)| <unfinished)")
SYNCED = re.compile(r"\bf(?:data)?sync\b.* = 0$")


def synced_to(trace: Path) -> dict[str, int]:
    """How far each segment of the WAL has been synced so far, in bytes."""
    written: dict[str, int] = {}
    synced: dict[str, int] = {}
    for line in trace.read_text(errors="replace").splitlines():
        if write := WAL_WRITE.search(line):
            written[write[1]] = max(written.get(write[1], 0), int(write[2]) + int(write[3]))
        elif SYNCED.search(line):
            synced = dict(written)
    return synced


async def test_power_loss_of_the_database_takes_nothing_that_was_shown(serve: Serve, postgres: Cluster) -> None:
    [service], _ = await started(serve, postgres.url, 1, STREAM_DELAY="0.01", LEASE_SECONDS="1")
    await rows(postgres.url, "CHECKPOINT")
    before = postgres.data.with_name("before")
    await asyncio.to_thread(shutil.copytree, postgres.data, before)
    calls = "trace=pwrite64,fdatasync,fsync"
    seen: list[Frame] = []
    async with traced(postgres.pid, postgres.data.with_name("trace"), "-e", calls) as trace:
        run_id = await service.begin(" ".join([MESSAGE] * 10))
        async with service.stream("GET", f"/runs/{run_id}/events") as stream:
            seen += [await anext(stream) for _ in range(30)]
            reached = synced_to(trace)  # at the moment at which this was seen
    assert reached
    await service.kill()
    await postgres.stop("immediate")
    # What was not synced then is gone, and the rest of the disk is as the last checkpoint left it.
    wal = {file.name: file.read_bytes() for file in (postgres.data / "pg_wal").iterdir() if file.is_file()}
    await asyncio.to_thread(shutil.rmtree, postgres.data)
    await asyncio.to_thread(before.rename, postgres.data)
    for name, data in wal.items():
        kept = data[: reached[name]].ljust(len(data), b"\0") if name in reached else data
        (postgres.data / "pg_wal" / name).write_bytes(kept)
    (postgres.data / "postmaster.pid").unlink()
    postgres.own()
    await postgres.start()
    await service.start()
    rest = await service.follow(run_id, seen[-1].seq)
    assert text_of(seen + rest) == " ".join([MESSAGE] * 10)
    assert (await service.follow(run_id))[: len(seen)] == seen
    await check_run(service, run_id)


async def test_what_the_database_cannot_sync_is_not_acknowledged(serve: Serve, postgres: Cluster) -> None:
    [service], _ = await started(serve, postgres.url, 1, STREAM_DELAY="0.1", LEASE_SECONDS="2")
    first = await service.begin(MESSAGE)
    failing = "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"
    async with service.stream("GET", f"/runs/{first}/events") as stream:
        seen = [await anext(stream) for _ in range(3)]
        async with traced(postgres.pid, postgres.data.with_name("trace"), *failing):
            response = await service.client.post("/chat", json={"message": "Hello", "session_id": "ses_2"})
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            shown = [frame async for frame in stream]
    seen += [frame for frame in shown if frame.id is not None]
    await postgres.end()
    await postgres.start()
    await service.until_up()
    assert seen == (await service.follow(first))[: len(seen)]
    assert text_of(seen) == MESSAGE[: len(text_of(seen))]
    run = await check_run(service, first)
    assert run["status"] in ("completed", "failed")
    again = await service.begin("Hello again", session_id="ses_3")
    assert (await settled(service, again))["status"] == "completed"
