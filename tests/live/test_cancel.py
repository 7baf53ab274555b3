"""Who stops an answer, and that the model then stops as well."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.live.checks import check_run, member
from tests.live.dialogue import ask, dialogue, run_of
from tests.live.service import PATIENCE
from tests.live.wire import reset_on_close
from tests.patience import soon
from tests.upstream import chunk, completion, done, finish, reply

MESSAGE = {"message": "Go on until I say stop."}


async def test_cancel_closes_the_upstream_and_keeps_what_was_said(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with dialogue(tmp_path, reply(chunk("As far as "), chunk("here"), gate)) as (service, upstream):
        async with service.stream("POST", "/chat", json=MESSAGE) as stream:
            seen = [await anext(stream) for _ in range(3)]
            request = await upstream.request(0)
            assert not request.closed.is_set()
            response = await service.client.post(f"/runs/{run_of(seen[0])}/cancel")
            await soon(request.closed.wait())
            [ending] = [frame async for frame in stream]
        assert response.json()["status"] == "cancelled"
        assert (ending.event, member(ending, "reason")) == ("run.cancelled", "requested")
        assert await service.answer(run_of(seen[0])) == "As far as here"
        await check_run(service, run_of(seen[0]))


async def test_cancel_before_the_first_token_leaves_an_empty_answer(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with dialogue(tmp_path, reply(gate)) as (service, upstream):
        run_id = await service.begin(MESSAGE["message"])
        request = await upstream.request(0)
        assert (await service.client.post(f"/runs/{run_id}/cancel")).json()["status"] == "cancelled"
        await soon(request.closed.wait())
        await check_run(service, run_id)
        assert await service.answer(run_id) == ""


async def test_cancels_that_come_all_at_once_end_the_run_once(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with dialogue(tmp_path, reply(chunk("A"), gate)) as (service, upstream):
        run_id = await service.begin(MESSAGE["message"])
        await upstream.request(0)
        answers = await asyncio.gather(*[service.client.post(f"/runs/{run_id}/cancel") for _ in range(10)])
        assert {answer.json()["status"] for answer in answers} == {"cancelled"}
        await check_run(service, run_id)


async def test_cancelling_what_has_ended_changes_nothing(tmp_path: Path) -> None:
    async with dialogue(tmp_path, completion("Done.")) as (service, _):
        run_id, _ = await ask(service)
        before = await check_run(service, run_id)
        assert (await service.client.post(f"/runs/{run_id}/cancel")).json() == before
        assert await check_run(service, run_id) == before
        assert (await service.client.post("/runs/run_nobody/cancel")).status_code == 404


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_client_that_asked_for_it_cancels_by_leaving(tmp_path: Path, reset: bool) -> None:
    gate = asyncio.Event()
    async with dialogue(tmp_path, reply(chunk("Only for you"), gate)) as (service, upstream):
        client = httpx.AsyncClient(base_url=service.url, timeout=PATIENCE)
        body = MESSAGE | {"on_disconnect": "cancel"}
        async with client, client.stream("POST", "/chat", json=body) as response:
            if reset:
                reset_on_close(response)
            request = await upstream.request(0)
        await soon(request.closed.wait())
        run = await check_run(service, response.headers["x-run-id"])
        assert run["status"] == "cancelled"
        ending = (await service.follow(run["run_id"]))[-1]
        assert member(ending, "reason") == "client_disconnected"


async def test_only_the_client_that_asked_for_it_cancels_by_leaving(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with dialogue(tmp_path, reply(chunk("Going "), gate, chunk("on."), finish(), done())) as (service, upstream):
        async with service.stream("POST", "/chat", json=MESSAGE | {"on_disconnect": "cancel"}) as first:
            run_id = run_of(await anext(first))
            async with service.stream("GET", f"/runs/{run_id}/events") as other:
                assert (await anext(other)).id == f"{run_id}.0"
            request = await upstream.request(0)
            assert not request.closed.is_set()
            gate.set()
            assert [frame.data async for frame in first] == ["Going ", "on.", "[DONE]"]
        assert (await check_run(service, run_id))["status"] == "completed"


async def test_a_client_that_waits_for_json_cancels_by_leaving_too(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with dialogue(tmp_path, reply(chunk("Only for you"), gate)) as (service, upstream):
        body = MESSAGE | {"on_disconnect": "cancel", "stream": False, "session_id": "one"}
        waiting = asyncio.create_task(service.client.post("/chat", json=body))
        request = await upstream.request(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await soon(request.closed.wait())
        [(run_id,)] = service.rows("SELECT id FROM runs")
        assert (await check_run(service, str(run_id)))["status"] == "cancelled"


async def test_without_being_asked_nobody_cancels_by_leaving(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with dialogue(tmp_path, reply(chunk("Still "), gate, chunk("here."), finish(), done())) as (
        service,
        upstream,
    ):
        async with service.stream("POST", "/chat", json=MESSAGE) as stream:
            run_id = run_of(await anext(stream))
        request = await upstream.request(0)
        assert (await service.client.get(f"/runs/{run_id}")).json()["status"] == "running"
        assert not request.closed.is_set()
        gate.set()
        assert (await check_run(service, run_id))["status"] == "completed"
        assert await service.answer(run_id) == "Still here."


async def test_deleting_a_session_stops_what_it_is_doing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with dialogue(tmp_path, reply(chunk("Never mind"), gate)) as (service, upstream):
        async with service.stream("POST", "/chat", json=MESSAGE | {"session_id": "one"}) as stream:
            run_id = run_of(await anext(stream))
            await service.begin("And this waits.", session_id="one", on_busy="queue")
            request = await upstream.request(0)
            assert (await service.client.delete("/sessions/one")).status_code == 204
            await soon(request.closed.wait())
            assert [frame.event async for frame in stream][-1] == "run.cancelled"
        assert (await service.client.get("/sessions/one")).status_code == 404
        assert (await service.client.get(f"/runs/{run_id}")).status_code == 404
        assert (await service.client.get(f"/runs/{run_id}/events")).status_code == 404
        for table in ("sessions", "messages", "runs", "log_pages", "claims"):
            assert service.rows(f"SELECT count(*) FROM {table}") == [(0,)]
