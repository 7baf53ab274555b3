"""A replica that the network cuts off from the database: it shows nothing, and what it says late is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.live.checks import check_run
from tests.live.cluster import Cluster
from tests.live.conftest import Serve
from tests.live.links import BACK, THERE, Link
from tests.live.replicas import said_twice
from tests.live.service import PATIENCE, Frame, Service, text_of
from tests.postgres import rows

MESSAGE = "A dozen words or more that come from one side of a network or from the other one."


@dataclass(frozen=True, slots=True)
class Split:
    """``own`` reaches the database over the link, ``other`` without."""

    own: Service
    other: Service
    link: Link
    url: str


@asynccontextmanager
async def split(serve: Serve, postgres: Cluster) -> AsyncIterator[Split]:
    settings = {"STREAM_DELAY": "0.3", "LEASE_SECONDS": "1.5", "DRAIN_SECONDS": "0"}
    async with Link(postgres.port) as link:
        over = postgres.url_by(link.port)
        own = await serve(DATABASE_URL=over, **settings)
        other = await serve(DATABASE_URL=postgres.url, **settings)
        yield Split(own, other, link, postgres.url)


async def until_epoch(url: str, epoch: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await rows(url, "SELECT epoch FROM runs") != [(epoch,)]:
            pass


async def rest_of(stream: AsyncIterator[Frame]) -> list[Frame]:
    async with asyncio.timeout(PATIENCE * 2):
        return [frame async for frame in stream]


async def resumed(service: Service, run_id: str) -> list[Frame]:
    """The whole answer, by somebody who comes back until there is one: at first the service may say that it cannot."""
    seen: list[Frame] = []
    async with asyncio.timeout(PATIENCE):
        while not (seen and seen[-1].data == "[DONE]"):
            _, *more = await service.follow(run_id, len(seen))
            seen += [frame for frame in more if frame.id is not None]
    return seen


@pytest.mark.parametrize("directions", [(THERE, BACK), (THERE,), (BACK,)], ids=" and ".join)
async def test_replica_that_is_cut_off_shows_nothing_and_another_goes_on(
    serve: Serve, postgres: Cluster, directions: tuple[str, ...]
) -> None:
    async with split(serve, postgres) as parts:
        run_id = await parts.own.begin(MESSAGE)
        async with parts.own.stream("GET", f"/runs/{run_id}/events") as stream:
            seen = [await anext(stream) for _ in range(3)]
            parts.link.silence(*directions)
            await until_epoch(parts.url, 2)
            whole = await parts.other.follow(run_id)
            seen += await rest_of(stream)  # for as long as the cut lasts, and longer than the lease
        assert text_of(whole) == MESSAGE
        assert seen[-1].retry is not None
        shown = [frame for frame in seen if frame.id is not None]
        assert len(shown) < len(whole)
        assert shown == whole[: len(shown)]
        assert (await parts.own.client.get("/ready")).status_code == 503
        parts.link.heal()  # what it has said meanwhile arrives now
        await parts.own.until_up()
        assert await resumed(parts.own, run_id) == whole[1:]
        assert await said_twice(parts.url) == []
        assert await rows(parts.url, "SELECT epoch FROM runs") == [(2,)]
        await check_run(parts.own, run_id)
        await check_run(parts.own, await parts.own.begin("And it works again."))


async def test_commit_that_arrives_when_another_replica_has_the_run_is_refused(serve: Serve, postgres: Cluster) -> None:
    """The cut is over before the process has given up, so that it writes on as if nothing had been."""
    async with split(serve, postgres) as parts:
        run_id = await parts.own.begin(MESSAGE)
        async with parts.own.stream("GET", f"/runs/{run_id}/events") as stream:
            seen = [await anext(stream) for _ in range(3)]
            parts.link.silence()
            await until_epoch(parts.url, 2)
            parts.link.heal()
            seen += await rest_of(stream)
        shown = [frame for frame in seen if frame.id is not None]
        whole = await parts.other.follow(run_id)
        assert text_of(whole) == MESSAGE
        assert shown == whole[: len(shown)]
        assert await resumed(parts.own, run_id) == whole[1:]
        assert await said_twice(parts.url) == []
        await check_run(parts.own, run_id)


async def test_followers_of_others_runs_leave_a_replica_that_is_cut_off(serve: Serve, postgres: Cluster) -> None:
    async with split(serve, postgres) as parts:
        run_id = await parts.other.begin(" ".join([MESSAGE] * 2))
        async with parts.own.stream("GET", f"/runs/{run_id}/events") as stream:
            seen = [await anext(stream) for _ in range(3)]
            parts.link.silence()
            seen += await rest_of(stream)
        assert seen[-1].retry is not None
        shown = [frame for frame in seen if frame.id is not None]
        rest = await parts.other.follow(run_id, shown[-1].seq)
        assert text_of(shown + rest) == " ".join([MESSAGE] * 2)
        assert await rows(parts.url, "SELECT epoch FROM runs") == [(1,)]
        await check_run(parts.other, run_id)


async def test_network_that_blinks_costs_nothing(serve: Serve, postgres: Cluster) -> None:
    async with split(serve, postgres) as parts:
        run_id = await parts.own.begin(MESSAGE)
        async with parts.own.stream("GET", f"/runs/{run_id}/events") as stream:
            seen = [await anext(stream)]
            async for frame in stream:
                seen.append(frame)
                parts.link.silence()
                asyncio.get_running_loop().call_later(0.1, parts.link.heal)
        assert text_of(seen) == MESSAGE
        assert await rows(parts.url, "SELECT epoch FROM runs") == [(1,)]
        await check_run(parts.own, run_id)
