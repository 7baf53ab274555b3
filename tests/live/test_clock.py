"""A clock that jumps: order is by sequence, and timers are monotonic."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

from tests.live.checks import check_run, until
from tests.live.cluster import Cluster
from tests.live.conftest import Serve
from tests.live.nursery import SERVER
from tests.live.replicas import all_see, said_twice, started
from tests.live.service import Service, text_of
from tests.live.witness import Witness
from tests.postgres import rows
from tests.programs import unavailable

MESSAGE = "A dozen words or more that are said while the clock jumps to and fro."
CLIENTS = 6

FAKETIME = "*/faketime/libfaketime.so.1"


@pytest.fixture
def faketime() -> str:
    """The library that shows a process another time, which stands in a file."""
    found = next(Path("/usr/lib").glob(FAKETIME), None)
    return str(found) if found is not None else unavailable("libfaketime is not installed")


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where the service keeps everything, as settings."""
    return {"DATABASE_URL": request.getfixturevalue("url")} if request.param == "postgres" else {}


async def test_services_clock_that_jumps_a_day_changes_no_order_and_no_timer(
    tmp_path: Path, faketime: str, kept: dict[str, str]
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    service = Service(tmp_path, STREAM_DELAY="0.1", LEASE_SECONDS="2", **kept)
    service.settings |= {
        "LD_PRELOAD": faketime, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    service.command = [sys.executable, str(SERVER)]
    async with service:
        runs, times = [], []
        for jump in ("+1d", "-1d", "+0"):
            runs.append(await service.begin(MESSAGE, session_id="one"))
            async with service.stream("GET", f"/runs/{runs[-1]}/events") as stream:
                seen = [await anext(stream) for _ in range(3)]
                clock.write_text(jump)
                seen += [frame async for frame in stream]
            assert text_of(seen) == MESSAGE
            run = await check_run(service, runs[-1])
            assert run["status"] == "completed"
            assert "seam" not in [frame.event for frame in await service.follow(runs[-1], format="events")]
            times.append(str(run["finished_at"]))
        assert times[1] < times[2] < times[0]  # the jumps were seen
        messages = (await service.client.get("/sessions/one/messages")).json()["messages"]
        assert [message["run_id"] for message in messages if message["role"] == "assistant"] == runs


async def test_databases_clock_that_jumps_a_day_costs_no_answer(
    serve: Serve, postgres: Cluster, tmp_path: Path, faketime: str
) -> None:
    """At the first jump every owner seems to have been silent for a day: runs change hands, and nothing else."""
    clock = postgres.data.with_name("clock")
    clock.write_text("+0")
    clock.chmod(0o644)
    await postgres.stop()
    preload = {"LD_PRELOAD": faketime, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    await postgres.start(preload | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    services, _ = await started(serve, postgres.url, 2, STREAM_DELAY="0.1", LEASE_SECONDS="2")
    [(earlier,)] = await rows(postgres.url, "SELECT clock_timestamp()")
    for jump in ("+1d", "-1d"):
        witnesses = [Witness(services[number % 2], random.Random(number)) for number in range(CLIENTS)]
        asking = [asyncio.create_task(one.ask(message=f"{MESSAGE} {MESSAGE} {MESSAGE}")) for one in witnesses]
        await until(lambda: all_see(witnesses))  # noqa: B023  # it is awaited here
        clock.write_text(jump)
        for account in await asyncio.gather(*asking):
            assert text_of(account.seen) == account.body["message"]
            assert account.seen == (await services[0].follow(account.run_id))[1:]
            await check_run(services[1], account.run_id)
        [(later,)] = await rows(postgres.url, "SELECT clock_timestamp()")
        assert abs((later - earlier).total_seconds()) > 80_000
        earlier = later
    assert await said_twice(postgres.url) == []
