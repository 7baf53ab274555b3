"""Two services and one PostgreSQL, with PgBouncer in between."""

import asyncio
from pathlib import Path

import pytest

from tests.live.checks import check_run
from tests.live.conftest import Serve
from tests.live.pgbouncer import pooled
from tests.live.service import Service, text_of
from tests.patience import PATIENCE
from tests.postgres import rows
from tests.upstream import Upstream, chunk, done, finish, reply


@pytest.mark.parametrize(("mode", "size"), [("session", 30), ("transaction", 3)])
async def test_services_behind_a_pooler_lose_nothing(
    serve: Serve, url: str, tmp_path: Path, mode: str, size: int
) -> None:
    """In transaction mode the services' many connections share three: what one leaves behind, another one finds."""
    async with pooled(url, tmp_path, mode, size) as address:
        settings = {"DATABASE_URL": address, "STREAM_DELAY": "0.01", "LEASE_SECONDS": "2"}
        two = await serve(**settings), await serve(**settings)
        messages = [f"Number {number} is one of many that are answered at once." for number in range(24)]
        runs = await asyncio.gather(*(two[n % 2].begin(message) for n, message in enumerate(messages)))
        seen = await asyncio.gather(*(two[(n + 1) % 2].follow(run_id) for n, run_id in enumerate(runs)))
        assert [text_of(frames) for frames in seen] == messages
        for number, run_id in enumerate(runs):
            assert (await check_run(two[number % 2], run_id))["status"] == "completed"
        for service in two:
            assert service.log.read_text().count("a pooler is in between") == 1
        if mode == "transaction":
            for service in two:
                await said(service, "nothing rings when others commit")
        else:
            listening = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
            assert await rows(url, listening) == [(2,)]


async def said(service: Service, sentence: str) -> None:
    async with asyncio.timeout(PATIENCE * 2):
        while sentence not in service.log.read_text():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("mode", "size"), [("session", 30), ("transaction", 3)])
async def test_run_of_a_killed_replica_goes_on_behind_a_pooler(
    serve: Serve, url: str, tmp_path: Path, mode: str, size: int
) -> None:
    half, rest = reply(chunk("It begins "), asyncio.Event()), reply(chunk("and ends."), finish(), done())
    async with pooled(url, tmp_path, mode, size) as address, Upstream(half, rest) as upstream:
        settings = {"DATABASE_URL": address, "BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none"}
        own, other = await serve(LEASE_SECONDS="2", **settings), await serve(LEASE_SECONDS="2", **settings)
        run_id = await own.begin("Tell me.")
        async with other.stream("GET", f"/runs/{run_id}/events") as watched, asyncio.timeout(PATIENCE * 2):
            seen = [await anext(watched) for _ in range(2)]
            await own.kill()
            seen += [frame async for frame in watched]
        assert text_of(seen) == "It begins and ends."
        assert (await check_run(other, run_id))["status"] == "completed"


async def test_statements_that_do_not_stay_prepared_are_explained(serve: Serve, url: str, tmp_path: Path) -> None:
    """Who asks for them in transaction mode is told what to set; what was acknowledged before is there."""
    async with pooled(url, tmp_path, "transaction", 1) as address:
        wrong = f"{address}?statement_cache_size=100"
        first = await serve(DATABASE_URL=wrong, STREAM_DELAY="0")
        run_id = await first.begin("It works for the first one.")
        assert (await check_run(first, run_id))["status"] == "completed"
        await first.kill()
        await first.start(ready=False)
        await said(first, "a pooler in transaction mode is in between. DATABASE_URL has to say ?statement_cache")
        assert (await first.client.get("/ready")).status_code == 503
        assert (await first.client.post("/chat", json={"message": "No."})).status_code == 503
        second = await serve(DATABASE_URL=address)
        assert await second.answer(run_id) == "It works for the first one."
