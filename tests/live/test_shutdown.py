"""SIGTERM: running answers get their time, the rest is handed back, and the process is gone when it should be."""

import asyncio
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.checks import check_run, member
from tests.live.dialogue import run_of
from tests.live.service import PATIENCE, ROOT, Frame, Service, text_of
from tests.live.wire import stalled
from tests.live.witness import Witness
from tests.patience import soon
from tests.upstream import Upstream, calling, chunk, completion, done, finish, reply

MESSAGE = "A dozen words or so that are said while the process is about to end."


def python_server(service: Service) -> list[str]:
    return [sys.executable, str(ROOT / "server.py")]


def uvicorn_server(service: Service) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT), "--port", str(service.port), "server:app"]


@pytest.fixture(params=[python_server, uvicorn_server], ids=["python server.py", "uvicorn server:app"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    """A service that is not started yet, for each of the two ways to start one."""
    made = Service(tmp_path)
    made.command = request.param(made)
    yield made
    await made.client.aclose()
    await made.kill()


async def draining(service: Service) -> None:
    """Send SIGTERM, and return when the service knows."""
    service.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        while (await service.client.get("/ready")).status_code != 503:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.02)


async def gone(service: Service, within: float) -> None:
    """The process ends by itself, orderly, and within its time."""
    assert service.process is not None
    async with asyncio.timeout(within + PATIENCE):
        status = await service.process.wait()
    assert status in (0, -signal.SIGTERM)
    # uvicorn says of each request that it had to cut off where it was; nothing else may go wrong.
    errors = [line for line in service.log.read_text().splitlines() if "Traceback" in line]
    assert [line for line in errors if "timeout graceful shutdown exceeded" not in line] == []
    assert list(service.folder.glob("parley.db-owner*")) == []


async def test_running_answers_finish_and_new_work_is_turned_away(service: Service) -> None:
    gate = asyncio.Event()
    async with Upstream(reply(chunk("Wait "), gate, chunk("for me."), finish(), done())) as upstream:
        service.settings |= {"BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none", "DRAIN_SECONDS": "600"}
        await service.start()
        async with service.stream("POST", "/chat", json={"message": MESSAGE}) as stream:
            seen = [await anext(stream), await anext(stream)]
            run_id = run_of(seen[0])
            await draining(service)
            for response in (
                await service.client.post("/chat", json={"message": "Too late."}),
                await service.client.post("/query", json={"prompt": "Too late."}),
                await service.client.post(f"/runs/{run_id}/retry", json={"on_busy": "queue"}),
                await service.client.get("/ready"),
            ):
                assert (response.status_code, response.json()["code"]) == (503, "draining")
                assert int(response.headers["retry-after"]) >= 1
            # EventSource would give up for good on a 503.
            turned_away = await service.client.get("/chat", params={"message": "Too late."})
            assert turned_away.status_code == 200
            assert turned_away.text.startswith("retry: ")
            assert (await service.client.get("/health")).status_code == 200
            async with service.stream("GET", f"/runs/{run_id}/events") as other:  # who comes back is let in
                again = [await anext(other)]
                gate.set()
                again += [frame async for frame in other]
            seen += [frame async for frame in stream]
        assert seen == again
        assert [frame.data for frame in seen[1:]] == ["Wait ", "for me.", "[DONE]"]
        await gone(service, 60)
        await service.start()
        assert service.rows("SELECT id, epoch, status FROM runs") == [(run_id, 1, "completed")]
        await check_run(service, run_id)


async def test_what_does_not_finish_is_handed_back_and_goes_on(service: Service) -> None:
    service.settings |= {"STREAM_DELAY": "0.3", "DRAIN_SECONDS": "0.5"}
    await service.start()
    async with service.stream("POST", "/chat", json={"message": MESSAGE, "session_id": "one"}) as stream:
        seen = [await anext(stream), await anext(stream)]
        run_id = run_of(seen[0])
        waiting = await service.begin("And this one waits.", session_id="one", on_busy="queue")
        service.send_signal(signal.SIGTERM)
        seen += [frame async for frame in stream]
    *seen, last = seen
    assert last.id is last.event is last.data is None
    assert 500 <= (last.retry or 0) <= 3_000
    assert text_of(seen) == MESSAGE[: len(text_of(seen))] != MESSAGE
    await gone(service, 0.5)
    service.settings["STREAM_DELAY"] = "0"
    await service.start()
    rest = await service.follow(run_id, seen[-1].seq, format="events")
    assert rest[1].event == "seam"
    assert member(rest[1], "epoch") == 2
    _, *rest = await service.follow(run_id, seen[-1].seq)
    assert text_of(seen + rest) == MESSAGE
    assert seen + rest == await service.follow(run_id)
    await check_run(service, run_id)
    assert (await check_run(service, waiting))["status"] == "completed"
    assert await service.answer(waiting) == "And this one waits."


async def test_the_model_is_asked_to_go_on_from_the_stored_text(service: Service) -> None:
    gate = asyncio.Event()
    first = reply(chunk("Half an ans"), gate)
    async with Upstream(first, completion("wer, and the ", "rest.")) as upstream:
        service.settings |= {"BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none", "DRAIN_SECONDS": "0"}
        await service.start()
        async with service.stream("POST", "/chat", json={"message": "Well?"}) as stream:
            run_id = run_of(await anext(stream))
            await anext(stream)
            service.send_signal(signal.SIGTERM)
            await soon((await upstream.request(0)).closed.wait())
            assert [frame.retry is not None async for frame in stream] == [True]
        await gone(service, 0)
        await service.start()
        assert text_of(await service.follow(run_id)) == "Half an answer, and the rest."
        again = (await upstream.request(1)).body["messages"]
        assert [turn["content"] for turn in again[:2]] == ["Well?", "Half an ans"]
        assert [turn["role"] for turn in again] == ["user", "assistant", "user"]
        await check_run(service, run_id)


async def test_a_run_that_waits_for_a_yes_is_not_waited_for(service: Service) -> None:
    async with Upstream(calling("call_1", "order", {"article": "bread"}), completion("Done.")) as upstream:
        service.settings |= {"BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none", "DRAIN_SECONDS": "600"}
        service.settings["TOOLS"] = "tests.live.careful_tool"
        await service.start()
        run_id = await service.begin("Bread, please")
        async with service.stream("GET", f"/runs/{run_id}/events", params={"format": "events"}) as stream:
            seen: list[Frame] = []
            async for frame in stream:
                seen.append(frame)
                if frame.event == "tool.approval":
                    service.send_signal(signal.SIGTERM)
        await gone(service, 5)
        await service.start()
        response = await service.client.post(f"/runs/{run_id}/approvals/call_1", json={"approved": True})
        assert response.status_code == 200
        frames = await service.follow(run_id, seen[-2].seq, format="events")
        assert [frame.event for frame in frames[1:]] == [
            "seam", "tool.decided", "tool.finished", "text.delta", "run.completed",
        ]  # fmt: skip
        await check_run(service, run_id)


async def test_a_run_of_which_nothing_was_shown_starts_over_without_a_seam(service: Service) -> None:
    gate = asyncio.Event()
    async with Upstream(reply(gate), completion("Here I am.")) as upstream:
        service.settings |= {"BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none", "DRAIN_SECONDS": "0"}
        await service.start()
        run_id = await service.begin("Well?")
        await upstream.request(0)
        assert await service.terminate() in (0, -signal.SIGTERM)
        await service.start()
        assert (await upstream.request(1)).body == (await upstream.request(0)).body
        assert [frame.event for frame in await service.follow(run_id, format="events")] == [
            "run.started", "text.delta", "run.completed",
        ]  # fmt: skip
        await check_run(service, run_id)


async def test_a_reader_that_stalls_does_not_hold_the_process(service: Service) -> None:
    limits = dict.fromkeys(("MAX_MESSAGE_CHARS", "MAX_ANSWER_CHARS", "MAX_BODY_BYTES"), "9999999")
    service.settings |= {"STREAM_DELAY": "0", "DRAIN_SECONDS": "1", **limits}
    await service.start()
    run_id = await service.begin(" ".join(f"{number:0100}" for number in range(50_000)))
    await service.ended(run_id)
    asleep = [stalled(service, f"/runs/{run_id}/events") for _ in range(10)]
    try:
        assert len((await service.follow(run_id))[0].id or "") > 0  # asked later: theirs are all under way
        service.send_signal(signal.SIGTERM)
        await gone(service, 1 + 5)
    finally:
        for connection in asleep:
            connection.close()
    await service.start()
    await check_run(service, run_id)


async def test_silent_and_half_sent_requests_do_not_hold_the_process(service: Service) -> None:
    service.settings["DRAIN_SECONDS"] = "1"
    await service.start()
    beginnings = (
        b"",
        b"GET /health HT",
        b"POST /chat HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    )
    with ExitStack() as connections:
        for beginning in beginnings:
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            connection.sendall(beginning)
        assert (await service.client.get("/health")).status_code == 200  # asked later: theirs are all there
        service.send_signal(signal.SIGTERM)
        await gone(service, 1 + 5)


async def test_a_second_signal_ends_it_at_once(service: Service) -> None:
    service.settings |= {"STREAM_DELAY": "1", "DRAIN_SECONDS": "600"}
    await service.start()
    async with service.stream("POST", "/chat", json={"message": MESSAGE}) as stream:
        seen: list[Frame] = [await anext(stream), await anext(stream)]
        await draining(service)
        service.send_signal(signal.SIGTERM)
        await gone(service, 10)
    service.settings["STREAM_DELAY"] = "0"
    await service.start()
    run_id = run_of(seen[0])
    _, *rest = await service.follow(run_id, seen[-1].seq)
    assert text_of(seen + rest) == MESSAGE
    await check_run(service, run_id)


async def test_rolling_restarts_lose_nothing(service: Service) -> None:
    service.settings |= {"STREAM_DELAY": "0.05", "DRAIN_SECONDS": "0.2"}
    await service.start()
    draw = random.Random(35)
    witnesses = [Witness(service, draw) for _ in range(4)]
    asking = [asyncio.create_task(witness.ask(message=f"{MESSAGE} {MESSAGE} {MESSAGE}")) for witness in witnesses]
    for _ in range(4):
        await asyncio.sleep(draw.uniform(0, 0.5))
        service.send_signal(signal.SIGTERM)
        await gone(service, 0.2)
        await service.start()
    for account in await asyncio.gather(*asking):
        _, *whole = await service.follow(account.run_id)
        assert account.seen == whole
        assert text_of(whole) == account.body["message"]
        await check_run(service, account.run_id)


@pytest.mark.parametrize("query", [{"interval": 1, "events": 100}, {"events": 0, "silence": 300}, {"pings": "false"}])
async def test_a_stream_for_the_doctor_ends_where_it_is(service: Service, query: dict[str, object]) -> None:
    await service.start()
    async with service.stream("GET", "/doctor/stream", params={"events": 0, "silence": 300, **query}) as stream:
        assert (await anext(stream)).event == "doctor.report"
        service.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert [frame async for frame in stream if frame.event == "doctor.end"] == []
    await gone(service, within=PATIENCE)
    assert '"ERROR"' not in service.log.read_text()
