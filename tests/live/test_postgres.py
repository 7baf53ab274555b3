"""Two services, each on its own, with one PostgreSQL: any of them serves any run, and takes those of one that dies."""

import asyncio

import httpx
import pytest

from tests.live.checks import check_run, member
from tests.live.conftest import Serve
from tests.live.service import PATIENCE, Frame, Service, text_of
from tests.patience import soon
from tests.postgres import rows
from tests.upstream import Upstream, calling, chunk, done, finish, reply

MESSAGE = "A dozen words or more that come from one replica or from the other."


@pytest.fixture
async def two(serve: Serve, url: str) -> tuple[Service, Service]:
    settings = {"DATABASE_URL": url, "STREAM_DELAY": "0.2", "LEASE_SECONDS": "2"}
    return await serve(**settings), await serve(**settings)


async def test_two_hundred_who_start_at_once_are_all_answered(serve: Serve, url: str) -> None:
    """With the pool as it is, and PostgreSQL's default limit of connections."""
    service = await serve(DATABASE_URL=url, STREAM_DELAY="0")

    async def ask(number: int) -> httpx.Response:
        return await client.post("/chat", json={"message": f"Number {number}.", "session_id": f"s{number}"})

    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE * 3, limits=limits) as client:
        answers = await asyncio.gather(*(ask(number) for number in range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    assert await rows(url, "SELECT status, count(*) FROM runs GROUP BY status") == [("completed", 200)]
    assert (await rows(url, "SELECT count(*) FROM messages"))[0][0] == 400


async def test_follower_on_another_replica_sees_the_same_as_it_comes(serve: Serve, url: str) -> None:
    gates = [asyncio.Event() for _ in range(4)]
    script = [part for number, gate in enumerate(gates) for part in (chunk(f"{number} "), gate)]
    async with Upstream(reply(*script, finish(), done())) as upstream:
        settings = {"DATABASE_URL": url, "BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none"}
        own, other = await serve(**settings), await serve(**settings)
        run_id = await own.begin(MESSAGE)
        async with other.stream("GET", f"/runs/{run_id}/events") as stream, asyncio.timeout(PATIENCE):
            assert await anext(stream) == Frame(id=f"{run_id}.0")
            for number, gate in enumerate(gates):
                assert await anext(stream) == Frame(id=f"{run_id}.{number + 1}", data=f"{number} ")
                gate.set()
            assert [frame.data async for frame in stream] == ["[DONE]"]
        await check_run(own, run_id)
        assert await check_run(other, run_id) == await check_run(own, run_id)


async def test_stop_reaches_the_run_on_another_replica(serve: Serve, url: str) -> None:
    async with Upstream(reply(chunk("Going on"), asyncio.Event())) as upstream:
        settings = {"DATABASE_URL": url, "BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none"}
        own, other = await serve(**settings), await serve(**settings)
        run_id = await own.begin(MESSAGE)
        request = await upstream.request(0)
        assert (await other.client.post(f"/runs/{run_id}/cancel")).json()["status"] == "cancelled"
        await soon(request.closed.wait())
        assert (await check_run(other, run_id))["status"] == "cancelled"


async def test_session_is_one_run_and_a_key_too_on_both_replicas(two: tuple[Service, Service]) -> None:
    headers = {"Idempotency-Key": "the-key"}
    once = {"message": "Once.", "session_id": "one"}
    answers = await asyncio.gather(*(service.client.post("/chat", json=once, headers=headers) for service in two))
    assert len({answer.headers["x-run-id"] for answer in answers}) == 1
    assert sorted("idempotency-replayed" in answer.headers for answer in answers) == [False, True]
    assert answers[0].text == answers[1].text
    run_id = await two[0].begin(MESSAGE, session_id="two")
    refused = await two[1].client.post("/chat", json={"message": "No.", "session_id": "two"})
    assert (refused.status_code, refused.json()["run_id"]) == (409, run_id)
    queued = await two[1].begin("The second.", session_id="two", on_busy="queue")
    for service in two:
        assert (await check_run(service, queued))["status"] == "completed"


async def test_answer_of_one_replica_is_tried_again_on_the_other(two: tuple[Service, Service]) -> None:
    own, other = two
    run_id = await own.begin("Again?")
    await check_run(own, run_id)
    response = await other.client.post(f"/runs/{run_id}/retry", headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    assert (await check_run(own, response.json()["run_id"]))["status"] == "completed"


async def test_call_is_approved_on_another_replica(serve: Serve, url: str) -> None:
    call = calling("1", "order", {"article": "tea"})
    async with Upstream(call, reply(chunk("Ordered."), finish(), done())) as upstream:
        settings = {"DATABASE_URL": url, "BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none"}
        settings["TOOLS"] = "tests.live.careful_tool"
        own, other = await serve(**settings), await serve(**settings)
        run_id = await own.begin("Order tea.")
        async with asyncio.timeout(PATIENCE):
            while not (await other.client.get(f"/runs/{run_id}")).json()["waiting"]:
                pass
        approved = await other.client.post(f"/runs/{run_id}/approvals/1", json={"approved": True})
        assert approved.status_code == 200, approved.text
        assert (await check_run(other, run_id))["status"] == "completed"
        assert await own.answer(run_id) == "Ordered."


async def test_run_of_a_killed_replica_goes_on_in_the_other(two: tuple[Service, Service], url: str) -> None:
    own, other = two
    run_id = await own.begin(MESSAGE)
    async with other.stream("GET", f"/runs/{run_id}/events") as watched:
        seen = [await anext(watched) for _ in range(4)]
        await own.kill()
        seen += [frame async for frame in watched]  # who follows on the other one notices nothing but the seam
    assert text_of(seen) == MESSAGE
    assert seen == await other.follow(run_id)
    events = await other.follow(run_id, format="events")
    assert [member(frame, "epoch") for frame in events if frame.event == "seam"] == [2]
    await check_run(other, run_id)
    await own.start()
    assert seen == await own.follow(run_id)
    assert await rows(url, "SELECT count(*) FROM owners") == [(2,)]


async def test_service_outlives_a_restart_of_the_database(two: tuple[Service, Service], url: str) -> None:
    """As far as it can tell: all of its connections are gone, again and again."""
    run_id = await two[0].begin(MESSAGE)
    for _ in range(5):
        await rows(
            url,
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()""",
        )
    for service in two:
        assert (await check_run(service, run_id))["status"] == "completed"
        await service.until_up()
    again = await two[1].begin(MESSAGE)
    assert (await check_run(two[0], again))["status"] == "completed"
