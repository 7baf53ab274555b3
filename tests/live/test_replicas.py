"""Three replicas behind nginx: they die, freeze and restart, and every answer arrives once and whole."""

import asyncio
import random
import signal
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.live.checks import check_run, member, until
from tests.live.conftest import Serve
from tests.live.eventsource import browse, text
from tests.live.replicas import Replicas, all_see, replicas, said_twice
from tests.live.service import PATIENCE, Frame, Service, text_of
from tests.live.witness import Account, Witness
from tests.live.workers import frozen
from tests.postgres import rows
from tests.programs import node_with
from tests.upstream import Upstream, calling, chunk, done, finish, reply

MESSAGE = "A dozen words or more that come from one replica or from another of them."
CLIENTS = 8


async def until_shown(service: Service, run_id: str, words: int) -> None:
    async with service.stream("GET", f"/runs/{run_id}/events") as stream, asyncio.timeout(PATIENCE):
        async for frame in stream:
            if frame.seq >= words:
                return


async def hold(everyone: Replicas, accounts: list[Account]) -> None:
    """What was seen is what is stored: each message once, each answer whole."""
    assert await rows(everyone.url, "SELECT count(*) FROM runs") == [(len(accounts),)]
    assert await said_twice(everyone.url) == []
    for account in accounts:
        assert account.seen == (await everyone.front.follow(account.run_id))[1:]
        assert text_of(account.seen) == account.body["message"]
        assert (await check_run(everyone.front, account.run_id))["status"] == "completed"


@pytest.mark.client("EventSource", "resume")
async def test_pages_see_the_answer_of_a_killed_replica_go_on(serve: Serve, tmp_path: Path, url: str) -> None:
    node = node_with("eventsource")
    async with replicas(serve, tmp_path, url, STREAM_DELAY="0.3", LEASE_SECONDS="2") as everyone:
        run_id = await everyone.front.begin(MESSAGE)
        # Two on each replica.
        browsing = asyncio.create_task(browse(node, *[f"{everyone.front.url}/runs/{run_id}/events"] * 6))
        await until_shown(everyone.front, run_id, 4)
        await (await everyone.generating(run_id)).kill()
        told = await browsing
        assert [text(one) for one in told] == [MESSAGE] * 6
        assert any(event.name == "lost" for one in told for event in one)
        events = await everyone.front.follow(run_id, format="events")
        assert [member(frame, "epoch") for frame in events if frame.event == "seam"] == [2]
        assert await said_twice(url) == []
        await check_run(everyone.front, run_id)


@pytest.mark.client("EventSource", "send", "resume")
async def test_page_that_asked_a_replica_which_stops_is_answered_by_another(
    serve: Serve, tmp_path: Path, url: str
) -> None:
    node = node_with("eventsource")
    settings = {"STREAM_DELAY": "0.2", "LEASE_SECONDS": "600", "DRAIN_SECONDS": "0.5"}
    async with replicas(serve, tmp_path, url, **settings) as everyone:
        asked = f"{everyone.front.url}/chat?message={quote(MESSAGE)}&session_id=one&request_id=one"
        browsing = asyncio.create_task(browse(node, asked))
        async with asyncio.timeout(PATIENCE):
            while not (found := await rows(url, "SELECT id FROM runs")):
                pass
        [(run_id,)] = found
        await until_shown(everyone.front, run_id, 2)
        own = await everyone.generating(run_id)
        assert await own.terminate() in (0, -signal.SIGTERM)
        [told] = await browsing
        assert text(told) == MESSAGE
        assert await rows(url, "SELECT epoch FROM runs") == [(2,)]
        await check_run(everyone.front, run_id)


async def test_run_that_is_handed_back_goes_on_without_waiting_for_the_lease(
    serve: Serve, tmp_path: Path, url: str
) -> None:
    settings = {"STREAM_DELAY": "0.2", "LEASE_SECONDS": "600", "DRAIN_SECONDS": "0"}
    async with replicas(serve, tmp_path, url, **settings) as everyone:
        own, *others = everyone.services
        run_id = await own.begin(MESSAGE, session_id="one")
        queued = await own.begin("And this one waits.", session_id="one", on_busy="queue")
        async with others[0].stream("GET", f"/runs/{run_id}/events") as stream:
            seen = [await anext(stream) for _ in range(3)]
            own.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                seen += [frame async for frame in stream]
        assert text_of(seen) == MESSAGE
        assert text_of(await others[1].follow(queued)) == "And this one waits."
        for one in (run_id, queued):
            assert (await check_run(everyone.front, one))["status"] == "completed"


async def test_rolling_restart_under_load_loses_nothing(serve: Serve, tmp_path: Path, url: str) -> None:
    settings = {"STREAM_DELAY": "0.1", "LEASE_SECONDS": "600", "DRAIN_SECONDS": "0.3"}
    async with replicas(serve, tmp_path, url, **settings) as everyone:
        witnesses = [Witness(everyone.front, random.Random(number)) for number in range(CLIENTS)]
        asking = [asyncio.create_task(one.ask(message=f"{MESSAGE} {MESSAGE} {MESSAGE}")) for one in witnesses]
        await until(lambda: all_see(witnesses))
        for service in everyone.services:
            assert await service.terminate() in (0, -signal.SIGTERM)
            await service.start()
        await hold(everyone, await asyncio.gather(*asking))
        # Nobody waited for a lease: what went on elsewhere was handed back.
        assert (await rows(url, "SELECT max(epoch) > 1 FROM runs")) == [(True,)]


async def test_replicas_that_are_killed_one_after_the_other_lose_nothing(
    serve: Serve, tmp_path: Path, url: str
) -> None:
    async with replicas(serve, tmp_path, url, STREAM_DELAY="0.1", LEASE_SECONDS="1.5") as everyone:
        witnesses = [Witness(everyone.front, random.Random(number)) for number in range(CLIENTS)]
        asking = [asyncio.create_task(one.ask(message=f"{MESSAGE} {MESSAGE} {MESSAGE}")) for one in witnesses]
        await until(lambda: all_see(witnesses))
        for service in everyone.services:
            await service.restart()
        await hold(everyone, await asyncio.gather(*asking))
        assert await rows(url, "SELECT count(*) FROM owners") == [(3,)]


async def test_replica_that_froze_loses_its_runs_and_cannot_write_or_show_anything(
    serve: Serve, tmp_path: Path, url: str
) -> None:
    node = node_with("eventsource")
    async with replicas(serve, tmp_path, url, STREAM_DELAY="0.3", LEASE_SECONDS="1.5") as everyone:
        own, other, _ = everyone.services
        run_id = await own.begin(MESSAGE)
        browsing = asyncio.create_task(browse(node, *[f"{everyone.front.url}/runs/{run_id}/events"] * 6))
        async with own.stream("GET", f"/runs/{run_id}/events") as stream:
            seen = [await anext(stream) for _ in range(3)]
            with frozen(own.pid):
                told = await browsing  # nginx lets go of the frozen one, and asks another
                rest = await other.follow(run_id)
            seen += [frame async for frame in stream]  # awake again, it sends its followers away
        assert [text(one) for one in told] == [MESSAGE] * 6
        assert text_of(rest) == MESSAGE
        assert seen[-1].retry is not None
        seen = [frame for frame in seen if frame.id is not None]
        assert seen == rest[: len(seen)]
        assert await own.follow(run_id) == rest
        assert await said_twice(url) == []
        assert await rows(url, "SELECT epoch FROM runs") == [(2,)]
        await check_run(own, run_id)


async def test_replica_that_froze_while_its_model_was_silent_sends_its_followers_away(serve: Serve, url: str) -> None:
    """It would not notice by a commit, having nothing to commit."""
    silent, second = asyncio.Event(), asyncio.Event()
    replies = reply(chunk("Half "), silent), reply(chunk("and half."), second, finish(), done())
    async with Upstream(*replies) as upstream:
        settings = {"BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none", "LEASE_SECONDS": "1"}
        own, other = [await serve(DATABASE_URL=url, **settings) for _ in range(2)]
        run_id = await own.begin(MESSAGE)
        async with own.stream("GET", f"/runs/{run_id}/events") as stream:
            seen = [await anext(stream), await anext(stream)]
            with frozen(own.pid):
                await upstream.request(1)
            async with asyncio.timeout(PATIENCE):
                seen += [frame async for frame in stream]
        assert [frame.data for frame in seen[1:2]] == ["Half "]
        assert seen[-1].retry is not None
        second.set()
        assert text_of(await own.follow(run_id)) == "Half and half."
        await check_run(other, run_id)


async def test_any_replica_stops_queues_and_refuses_what_another_one_answers(
    serve: Serve, tmp_path: Path, url: str
) -> None:
    async with replicas(serve, tmp_path, url, STREAM_DELAY="0.3") as everyone:
        one, two, three = everyone.services
        first = await one.begin(MESSAGE, session_id="one")
        second = await two.begin("The second.", session_id="one", on_busy="queue")
        third = await three.begin("The third.", session_id="one", on_busy="queue")
        for service in everyone.services:
            refused = await service.client.post("/chat", json={"message": "No.", "session_id": "one"})
            assert (refused.status_code, refused.json()["run_id"]) == (409, first)
        assert (await three.client.post(f"/runs/{second}/cancel")).json()["status"] == "cancelled"
        assert (await two.client.post(f"/runs/{first}/cancel")).json()["status"] == "cancelled"
        assert text_of(await two.follow(third)) == "The third."
        again = await one.client.post(f"/runs/{first}/retry", headers={"Prefer": "respond-async"})
        assert again.status_code == 202, again.text
        runs = [first, second, third, again.json()["run_id"]]
        fourth = await three.begin("Instead.", session_id="one", on_busy="interrupt")
        for service in everyone.services:
            statuses = [(await check_run(service, run_id))["status"] for run_id in (*runs, fourth)]
            assert statuses == ["cancelled", "cancelled", "completed", "cancelled", "completed"]


async def test_call_whose_replica_was_killed_is_approved_on_another_and_made_by_a_third(
    serve: Serve, tmp_path: Path, url: str
) -> None:
    call = calling("1", "order", {"article": "tea"})
    async with Upstream(call, reply(chunk("Ordered."), finish(), done())) as upstream:
        settings = {"BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none", "TOOLS": "tests.live.careful_tool"}
        async with replicas(serve, tmp_path, url, LEASE_SECONDS="1", **settings) as everyone:
            own, other, _ = everyone.services
            run_id = await own.begin("Order tea.")
            async with own.stream("GET", f"/runs/{run_id}/events", params={"format": "events"}) as stream:
                while (await anext(stream)).event != "tool.approval":
                    pass
            await own.kill()
            approved = await other.client.post(f"/runs/{run_id}/approvals/1", json={"approved": True})
            assert approved.status_code == 200, approved.text
            assert text_of(await everyone.front.follow(run_id)) == "Ordered."
            events = [frame.event for frame in await everyone.front.follow(run_id, format="events")]
            assert events.count("tool.decided") == events.count("tool.finished") == 1
            await check_run(everyone.front, run_id)


async def test_same_key_is_one_run_whichever_replica_dies_of_it(serve: Serve, tmp_path: Path, url: str) -> None:
    async with replicas(serve, tmp_path, url, STREAM_DELAY="0.2", LEASE_SECONDS="1.5") as everyone:
        own, *others = everyone.services
        body, headers = {"message": MESSAGE, "session_id": "one"}, {"Idempotency-Key": "the-key"}
        async with own.stream("POST", "/chat", json=body, headers=headers) as stream:
            seen: list[Frame] = [await anext(stream), await anext(stream)]
            await own.kill()
        run_id = (seen[0].id or "").partition(".")[0]
        answers = await asyncio.gather(
            *[service.client.post("/chat", json=body, headers=headers) for service in (*others, everyone.front)]
        )
        assert {answer.headers["x-run-id"] for answer in answers} == {run_id}
        assert len({answer.text.replace(": ping\n\n", "") for answer in answers}) == 1
        other = await others[0].client.post("/chat", json={"message": "Another."}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
        assert await rows(url, "SELECT id FROM runs") == [(run_id,)]
        assert text_of(await others[1].follow(run_id)) == MESSAGE
        await check_run(others[0], run_id)
