"""The plain contract, byte by byte: headers, frames, pings, ends; and the richer one beside it."""

import asyncio
import gzip
import json
from pathlib import Path

import httpx
import pytest

from tests.live.checks import check_run, member
from tests.live.conftest import Serve
from tests.live.dialogue import ask, dialogue, run_of
from tests.live.service import PATIENCE, Frame, Service, frames, read_all, text_of
from tests.upstream import chunk, completion, done, finish, refusal, reply, sse

# Whatever the frames are cut at, it has to come through: their own syntax, spaces, every kind of line end but CR.
PIECES = (
    "  two spaces", " ", "\n", "\n\nthree lines\n", "data: no field", ":no comment", "id: 7\n", "\n ", "tab\t", "end ",
    "é", "😀", "\u2028", "\u0085", "\x0b\x0c\x1c", "\ufeff", "\x00", "[DONE]", "event: error\n\n", "\n",
)  # fmt: skip


async def test_the_headers_say_what_is_streamed_and_where_it_is_found_again(service: Service) -> None:
    body = {"message": "Hello", "session_id": "one", "user_id": "alice"}
    headers = {"Origin": "http://localhost:5173", "X-Request-Id": "req-1", "Accept-Encoding": "gzip"}
    async with service.client.stream("POST", "/chat", json=body, headers=headers) as response:
        received = await read_all(response)
    run_id = run_of(received[0])
    expected = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "connection": "keep-alive",
        "x-session-id": "one",
        "x-user-id": "alice",
        "x-run-id": run_id,
        "x-request-id": "req-1",
        "location": f"/runs/{run_id}/events",
        "access-control-allow-origin": "http://localhost:5173",
    }
    assert {name: response.headers.get(name) for name in expected} == expected
    exposed = {name.strip().lower() for name in response.headers["access-control-expose-headers"].split(",")}
    assert exposed >= {"x-session-id", "x-user-id", "x-run-id", "x-request-id", "location", "idempotency-replayed"}
    assert "content-encoding" not in response.headers
    assert "content-length" not in response.headers


async def test_the_bytes_are_those_of_the_contract(service: Service) -> None:
    response = await service.client.post("/chat", json={"message": "Hello from\nParley"})
    run_id = response.headers["x-run-id"]
    assert response.text == (
        f"id: {run_id}.0\n\n"
        f"id: {run_id}.1\ndata: Hello \n\n"
        f"id: {run_id}.2\ndata: from\ndata: \n\n"
        f"id: {run_id}.3\ndata: Parley\n\n"
        f"id: {run_id}.4\ndata: [DONE]\n\n"
    )
    assert len(run_id) < 64
    assert set(run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.")


async def test_the_first_frame_comes_before_the_first_token(tmp_path: Path) -> None:
    gate = asyncio.Event()
    script = reply(gate, chunk("At last."), finish(), done())
    async with dialogue(tmp_path, script) as (service, upstream):
        async with service.stream("POST", "/chat", json={"message": "Well?"}) as stream:
            opening = await anext(stream)
            assert opening == Frame(id=f"{run_of(opening)}.0")
            await upstream.request(0)  # it has been asked, and says nothing yet
            gate.set()
            assert [frame.data async for frame in stream] == ["At last.", "[DONE]"]
        await check_run(service, run_of(opening))


async def test_pings_keep_a_silent_stream_open(tmp_path: Path) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    script = reply(first, chunk("One."), second, chunk("Two."), finish(), done())
    async with dialogue(tmp_path, script, PING_SECONDS="0.05") as (service, _):
        async with service.client.stream("POST", "/chat", json={"message": "Well?"}) as response:
            lines, said = response.aiter_lines(), []
            async with asyncio.timeout(PATIENCE):
                for gate in (first, second):
                    pings = 0
                    async for line in lines:
                        said += [line] if line.startswith("data:") else []
                        pings += line == ": ping"
                        if pings == 3:
                            break
                    gate.set()
                said += [line async for line in lines if line.startswith("data:")]
        assert said == ["data: One.", "data: Two.", "data: [DONE]"]
        await check_run(service, response.headers["x-run-id"])


async def test_newlines_spaces_and_what_looks_like_a_frame_survive(tmp_path: Path) -> None:
    async with dialogue(tmp_path, completion(*PIECES)) as (service, _):
        run_id, received = await ask(service)
        assert text_of(received[:-1]) == "".join(PIECES)
        events = await service.follow(run_id, format="events")
        assert "".join(str(member(frame, "text")) for frame in events if frame.event == "text.delta") == "".join(PIECES)
        await check_run(service, run_id)
        assert await service.answer(run_id) == "".join(PIECES)


async def test_a_carriage_return_is_a_line_end_in_a_stream_and_itself_in_json(tmp_path: Path) -> None:
    text = "one\r\ntwo\rthree\n"
    async with dialogue(tmp_path, completion(text)) as (service, _):
        run_id, received = await ask(service)
        assert text_of(received) == "one\ntwo\nthree\n"
        events = await service.follow(run_id, format="events")
        assert member(events[1], "text") == text
        assert await service.answer(run_id) == text
        await check_run(service, run_id)


async def test_named_events_tell_all_and_prove_the_text(tmp_path: Path) -> None:
    thinking = sse({"choices": [{"index": 0, "delta": {"reasoning_content": "Let me see."}}]})
    usage = sse({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
    script = reply(thinking, chunk("Deux "), chunk("cafés ☕"), finish(), usage, done())
    async with dialogue(tmp_path, script) as (service, _):
        run_id, received = await ask(service, format="events", session_id="one")
        assert [frame.event for frame in received] == [
            "run.started", "reasoning.delta", "text.delta", "text.delta", "run.completed",
        ]  # fmt: skip
        run = await check_run(service, run_id)  # which compares length and SHA-256 with what is stored
        assert json.loads(received[0].data or "") == {
            "run_id": run_id,
            "session_id": "one",
            "message_id": run["message_id"],
            "answer_id": run["answer_id"],
            "model": "scripted",
            "status": "running",
        }
        ending = json.loads(received[-1].data or "")
        assert ending["finish_reason"] == "stop"
        assert ending["text_length"] == len("Deux cafés ☕")
        assert ending["usage"] == {"input_tokens": 7, "output_tokens": 2, "source": "reported"} == run["usage"]
        # The plain stream shows nothing of the reasoning but counts it: both formats share their cursors.
        plain = await service.follow(run_id)
        assert [frame.id for frame in plain] == [frame.id for frame in received]
        assert plain[1] == Frame(id=f"{run_id}.1")
        assert text_of(plain) == "Deux cafés ☕"


async def test_a_failed_run_ends_with_its_code(tmp_path: Path) -> None:
    async with dialogue(tmp_path, refusal(400, {"error": {"message": "no"}})) as (service, _):
        run_id, received = await ask(service)
        assert [frame.event for frame in received] == [None, "run.failed"]
        failure = json.loads(received[-1].data or "")
        assert failure.keys() == {"code", "message", "retryable"}
        assert (failure["code"], failure["retryable"]) == ("upstream_rejected", False)
        assert (await check_run(service, run_id))["error"] == failure


async def test_a_cancelled_run_ends_with_its_reason(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="1")
    async with service.stream("POST", "/chat", json={"message": "One two three four five six seven."}) as stream:
        opening, first = await anext(stream), await anext(stream)
        cancelled = await service.client.post(f"/runs/{run_of(opening)}/cancel")
        rest = [frame async for frame in stream]
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert first.data == "One "
    assert (rest[-1].event, json.loads(rest[-1].data or "")) == ("run.cancelled", {"reason": "requested"})
    assert "[DONE]" not in [frame.data for frame in rest]
    run = await check_run(service, run_of(opening))
    assert (await service.client.post(f"/runs/{run['run_id']}/cancel")).json() == cancelled.json()


async def test_without_a_stream_the_answer_comes_whole(service: Service) -> None:
    response = await service.client.post("/chat", json={"message": "All at once.", "stream": False})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    answer = response.json()
    assert (answer["answer"], answer["status"], answer["finish_reason"]) == ("All at once.", "completed", "stop")
    assert response.headers["x-run-id"] == answer["run_id"]
    assert response.headers["location"] == answer["events_url"]
    await check_run(service, answer["run_id"])


async def test_without_a_stream_a_failure_is_a_problem_with_what_was_said(tmp_path: Path) -> None:
    script = reply(chunk("Half an ans"), sse({"error": {"message": "overloaded"}}))
    async with dialogue(tmp_path, script) as (service, _):
        response = await service.client.post("/chat", json={"message": "Well?", "stream": False})
        problem = response.json()
        assert (response.status_code, problem["code"]) == (502, "upstream_error")
        assert (problem["answer"], problem["retryable"]) == ("Half an ans", True)
        assert (await check_run(service, problem["run_id"]))["status"] == "failed"


@pytest.mark.parametrize("path", ["/chat", "/api/chat", "/query", "/query/stream"])
async def test_respond_async_points_to_the_run(service: Service, path: str) -> None:
    said = {"message": "Later.", "prompt": "Later.", "messages": [{"role": "user", "content": "Later."}]}
    response = await service.client.post(path, json=said, headers={"Prefer": "respond-async, wait=5"})
    assert (response.status_code, response.headers["preference-applied"]) == (202, "respond-async")
    run = response.json()
    assert response.headers["location"] == run["events_url"] == f"/runs/{run['run_id']}/events"
    assert text_of(await service.follow(run["run_id"])) == "Later."
    await check_run(service, run["run_id"])


async def test_json_is_compressed_and_streams_are_not(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0")
    message = "Compress me. " * 200
    run_id = await service.begin(message, session_id="one")
    await service.ended(run_id)
    raw = {}
    for path in ("/sessions/one/messages", f"/runs/{run_id}/events", f"/runs/{run_id}/events?format=events"):
        async with service.client.stream("GET", path, headers={"Accept-Encoding": "gzip, br"}) as response:
            raw[path] = (
                response.headers.get("content-encoding"),
                b"".join([part async for part in response.aiter_raw()]),
            )
    (json_encoding, body), *streams = raw.values()
    assert json_encoding == "gzip"
    assert json.loads(gzip.decompress(body))["messages"][0]["content"] == message
    assert [(encoding, part[:4]) for encoding, part in streams] == [(None, b"id: ")] * 2


async def test_head_starts_nothing_and_does_not_hang(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="1")
    run_id = await service.begin("A run that takes ten seconds, or a little more than that.", session_id="one")
    before = service.rows("SELECT count(*) FROM runs")
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as client:
        for path in ("/", "/health", "/ready", "/chat?message=Hi", "/sessions", "/sessions/one", f"/runs/{run_id}",
                     f"/runs/{run_id}/events", "/sessions/one/events", "/docs", "/openapi.json"):  # fmt: skip
            response = await client.head(path)
            assert (response.status_code, response.content) == (200, b""), path
            # The connection is free for the next request: nothing streams on into it.
            assert (await client.get("/health")).json()["status"] == "healthy"
        assert (await client.head("/runs/nobody/events")).status_code == 404
    assert service.rows("SELECT count(*) FROM runs") == before
    assert (await service.client.get(f"/runs/{run_id}")).json()["status"] == "running"
    await service.client.post(f"/runs/{run_id}/cancel")
    await check_run(service, run_id)


async def test_two_clients_see_the_same_frames(service: Service) -> None:
    async with service.stream("POST", "/chat", json={"message": "Every word of this is seen by all of us."}) as stream:
        seen = [await anext(stream), await anext(stream)]
        run_id = run_of(seen[0])
        others = asyncio.gather(*[service.follow(run_id) for _ in range(5)])
        seen += [frame async for frame in stream]
    for other in await others:
        assert other == seen
    await check_run(service, run_id)


async def test_frames_are_sent_as_they_come_and_not_at_the_end(tmp_path: Path) -> None:
    gates = [asyncio.Event() for _ in range(5)]
    script = [part for number, gate in enumerate(gates) for part in (chunk(f"{number} "), gate)]
    async with dialogue(tmp_path, reply(*script, finish(), done())) as (service, _):
        async with service.client.stream("POST", "/chat", json={"message": "Count."}) as response:
            stream = frames(response)
            async with asyncio.timeout(PATIENCE):
                await anext(stream)
                for number, gate in enumerate(gates):
                    assert (await anext(stream)).data == f"{number} "
                    gate.set()
                assert (await anext(stream)).data == "[DONE]"
        await check_run(service, response.headers["x-run-id"])
