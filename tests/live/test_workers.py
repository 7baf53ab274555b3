"""Several processes behind one port: any of them serves any run, and each run survives the loss of its own."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.live.checks import check_run, member
from tests.live.conftest import Serve
from tests.live.dialogue import run_of
from tests.live.service import PATIENCE, Frame, Service, frames, read_all, text_of
from tests.live.workers import connected, frozen, workers
from tests.patience import soon
from tests.postgres import rows
from tests.upstream import Upstream, chunk, done, finish, reply

MESSAGE = "A dozen words or more that come from one process or from the other."


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where the workers keep everything, as settings."""
    return {"DATABASE_URL": request.getfixturevalue("url")} if request.param == "postgres" else {}


@pytest.fixture
async def service(serve: Serve, kept: dict[str, str]) -> Service:
    return await serve(WORKERS="2", STREAM_DELAY="0.3", LEASE_SECONDS="4", **kept)


@pytest.fixture
async def two(service: Service) -> tuple[int, int]:
    first, second = await workers(service, 2)
    return first, second


async def begin(client: httpx.AsyncClient, message: str = MESSAGE, **body: object) -> str:
    """Start a run on the worker that the client is connected to."""
    response = await client.post("/chat", json={"message": message, **body}, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    return str(response.json()["run_id"])


@asynccontextmanager
async def following(service: Service, worker: int, run_id: str) -> AsyncIterator[AsyncIterator[Frame]]:
    """The run's frames as this worker streams them."""
    async with connected(service, worker) as client, client.stream("GET", f"/runs/{run_id}/events") as response:
        assert response.status_code == 200
        yield frames(response)


async def follow_on(service: Service, worker: int, run_id: str, after: int = 0) -> list[Frame]:
    async with connected(service, worker) as client:
        headers = {"Last-Event-ID": f"{run_id}.{after}"}
        async with client.stream("GET", f"/runs/{run_id}/events", headers=headers) as response:
            return (await read_all(response))[1:]


async def test_a_follower_on_another_worker_sees_the_same_as_it_comes(serve: Serve, kept: dict[str, str]) -> None:
    gates = [asyncio.Event() for _ in range(4)]
    script = [part for number, gate in enumerate(gates) for part in (chunk(f"{number} "), gate)]
    async with Upstream(reply(*script, finish(), done())) as upstream, AsyncExitStack() as stack:
        service = await serve(WORKERS="2", BASE_URL=upstream.base_url, OPENAI_API_KEY="none", **kept)
        own, other = await workers(service, 2)
        run_id = await begin(await stack.enter_async_context(connected(service, own)))
        streams = [
            await stack.enter_async_context(following(service, worker, run_id)) for worker in (own, other, other)
        ]
        async with asyncio.timeout(PATIENCE):
            assert [await anext(stream) for stream in streams] == [Frame(id=f"{run_id}.0")] * 3
            for number, gate in enumerate(gates):
                expected = Frame(id=f"{run_id}.{number + 1}", data=f"{number} ")
                assert [await anext(stream) for stream in streams] == [expected] * 3
                gate.set()
            for stream in streams:
                assert [frame.data async for frame in stream] == ["[DONE]"]
        await check_run(service, run_id)


async def test_many_followers_on_both_workers_agree(service: Service, two: tuple[int, int]) -> None:
    async with connected(service, two[0]) as here, connected(service, two[1]) as there:
        runs = [await begin(client) for client in (here, there)]
    async with AsyncExitStack() as stack:
        streams = [
            (run_id, await stack.enter_async_context(following(service, worker, run_id)))
            for run_id in runs for worker in two for _ in range(5)
        ]  # fmt: skip
        followed = await asyncio.gather(*[collect(stream) for _, stream in streams])
    for (run_id, _), seen in zip(streams, followed, strict=True):
        assert seen == await service.follow(run_id)
        assert text_of(seen) == MESSAGE
    for run_id in runs:
        await check_run(service, run_id)


async def collect(stream: AsyncIterator[Frame]) -> list[Frame]:
    async with asyncio.timeout(PATIENCE):
        return [frame async for frame in stream]


async def test_a_cancel_reaches_the_run_on_another_worker(serve: Serve, kept: dict[str, str]) -> None:
    gate = asyncio.Event()
    async with Upstream(reply(chunk("Going on"), gate)) as upstream:
        service = await serve(WORKERS="2", BASE_URL=upstream.base_url, OPENAI_API_KEY="none", **kept)
        own, other = await workers(service, 2)
        async with connected(service, own) as client:
            run_id = await begin(client)
        request = await upstream.request(0)
        async with connected(service, other) as client:
            cancelled = await client.post(f"/runs/{run_id}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        await soon(request.closed.wait())
        assert (await check_run(service, run_id))["status"] == "cancelled"
        assert await service.answer(run_id) == "Going on"


async def test_the_run_of_a_killed_worker_goes_on_in_another(service: Service, two: tuple[int, int]) -> None:
    own, other = two
    async with connected(service, own) as client:
        run_id = await begin(client)
        async with following(service, other, run_id) as watched:
            seen = [await anext(watched) for _ in range(4)]
            os.kill(own, signal.SIGKILL)
            # Who follows on the other worker notices nothing but the seam.
            seen += [frame async for frame in watched]
    assert text_of(seen) == MESSAGE
    assert seen == await service.follow(run_id)
    events = await service.follow(run_id, format="events")
    assert [member(frame, "epoch") for frame in events if frame.event == "seam"] == [2]
    await check_run(service, run_id)
    assert own not in await workers(service, 2)


async def test_a_client_of_the_killed_worker_resumes_on_another(service: Service, two: tuple[int, int]) -> None:
    own, other = two
    async with connected(service, own) as client:
        run_id = await begin(client)
    seen: list[Frame] = []

    async def watch() -> None:
        async with following(service, own, run_id) as stream:
            async for frame in stream:
                seen.append(frame)
                if len(seen) == 4:
                    os.kill(own, signal.SIGKILL)

    with pytest.raises(httpx.TransportError):
        await watch()
    rest = await follow_on(service, other, run_id, seen[-1].seq)
    assert seen + rest == await service.follow(run_id)
    assert text_of(seen + rest) == MESSAGE
    await check_run(service, run_id)


async def test_a_queued_message_is_answered_wherever_its_turn_comes(service: Service, two: tuple[int, int]) -> None:
    own, other = two
    async with connected(service, own) as here, connected(service, other) as there:
        first = await begin(here, session_id="one")
        second = await begin(there, "The second.", session_id="one", on_busy="queue")
        third = await begin(here, "The third.", session_id="one", on_busy="queue")
        refused = await there.post("/chat", json={"message": "No.", "session_id": "one"})
        assert (refused.status_code, refused.json()["run_id"]) == (409, first)
    waiting = asyncio.create_task(follow_on(service, other, third))
    for run_id in (first, second, third):
        assert (await check_run(service, run_id))["status"] == "completed"
    assert text_of(await waiting) == "The third."


async def test_the_queue_of_a_killed_worker_goes_on(service: Service, two: tuple[int, int]) -> None:
    own, other = two
    async with connected(service, own) as client:
        first = await begin(client, session_id="one")
        second = await begin(client, "The second.", session_id="one", on_busy="queue")
    watched = asyncio.create_task(follow_on(service, other, second))
    os.kill(own, signal.SIGKILL)
    assert text_of(await watched) == "The second."
    for run_id in (first, second):
        assert (await check_run(service, run_id))["status"] == "completed"


async def test_a_message_interrupts_the_run_of_another_worker(service: Service, two: tuple[int, int]) -> None:
    own, other = two
    async with connected(service, own) as here, connected(service, other) as there:
        first = await begin(here, session_id="one")
        second = await begin(there, "Stop that.", session_id="one", on_busy="interrupt")
    assert (await check_run(service, first))["status"] == "cancelled"
    assert (await check_run(service, second))["status"] == "completed"


async def test_the_run_of_a_killed_worker_can_be_cancelled(service: Service, two: tuple[int, int]) -> None:
    own, other = two
    service_message = " ".join([MESSAGE] * 20)  # a minute's worth
    async with connected(service, own) as client:
        run_id = await begin(client, service_message)
    async with connected(service, other) as client:
        os.kill(own, signal.SIGKILL)
        assert (await client.post(f"/runs/{run_id}/cancel")).status_code == 200
    assert (await check_run(service, run_id))["status"] == "cancelled"


async def test_the_same_key_on_both_workers_is_one_run(service: Service, two: tuple[int, int]) -> None:
    async with connected(service, two[0]) as here, connected(service, two[1]) as there:
        headers = {"Idempotency-Key": "the-key"}
        answers = await asyncio.gather(
            *[client.post("/chat", json={"message": "Once."}, headers=headers) for client in (here, there)]
        )
    assert len({answer.headers["x-run-id"] for answer in answers}) == 1
    assert sorted("idempotency-replayed" in answer.headers for answer in answers) == [False, True]
    assert answers[0].text == answers[1].text
    await check_run(service, answers[0].headers["x-run-id"])


async def test_a_worker_that_froze_loses_its_run_and_cannot_write_to_it(service: Service, two: tuple[int, int]) -> None:
    own, other = two
    seen: list[Frame] = []
    async with connected(service, own) as client:
        run_id = await begin(client)
    async with following(service, own, run_id) as stream, following(service, other, run_id) as watched:
        seen += [await anext(stream) for _ in range(3)]
        with frozen(own):
            async with asyncio.timeout(PATIENCE):
                async for frame in watched:
                    if frame.id is not None and frame.data is None and frame.seq > 0:
                        break  # the seam: another process has it now
        seen += [frame async for frame in stream]  # awake again, it ends its streams without an end
        assert seen[-1].retry is not None
        assert text_of([frame async for frame in watched])
    seen = [frame for frame in seen if frame.id is not None]
    rest = await follow_on(service, own, run_id, seen[-1].seq)
    assert seen + rest == await service.follow(run_id)
    assert text_of(seen + rest) == MESSAGE
    await check_run(service, run_id)


async def test_a_worker_that_fell_far_behind_catches_up(serve: Serve, kept: dict[str, str]) -> None:
    service = await serve(WORKERS="2", STREAM_DELAY="0.001", LEASE_SECONDS="30", **kept)
    own, other = await workers(service, 2)
    slow = " ".join(["word"] * 5_000)  # more than a tail brings at once
    async with connected(service, own) as client:
        run_id = await begin(client, slow)
    async with following(service, other, run_id) as watched:
        seen = [await anext(watched), await anext(watched)]
        with frozen(other):
            assert text_of(await follow_on(service, own, run_id)) == slow
        async with asyncio.timeout(PATIENCE):
            seen += [frame async for frame in watched]
    assert seen == await service.follow(run_id)
    await check_run(service, run_id)


async def test_sigterm_drains_all_workers(service: Service, two: tuple[int, int]) -> None:
    runs = []
    for worker in two:
        async with connected(service, worker) as client:
            runs.append(await begin(client))
    followed = [asyncio.create_task(service.follow(run_id)) for run_id in runs]
    async with service.stream("GET", f"/runs/{runs[0]}/events") as stream:
        assert run_of(await anext(stream)) == runs[0]
        service.send_signal(signal.SIGTERM)
        seen = [[frame async for frame in stream], *await asyncio.gather(*followed)]
    assert all(MESSAGE.startswith(text_of(one)) for one in seen)  # a worker that is done leaves others' runs to them
    await service.exit()
    assert list(Path(service.folder).glob("parley.db-owner*")) == []
    url, sql = service.settings["DATABASE_URL"], "SELECT status, epoch FROM runs"
    ended = service.rows(sql) if url.startswith("sqlite") else await rows(url, sql)
    assert ended == [("completed", 1)] * 2
    await service.start()
    for run_id in runs:
        assert text_of(await service.follow(run_id)) == MESSAGE
        await check_run(service, run_id)
