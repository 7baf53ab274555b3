"""The same request twice is one run; two messages in one session are one after the other."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.live.checks import check_run, member
from tests.live.conftest import Serve
from tests.live.service import PATIENCE, Frame, Service, read_all, text_of
from tests.upstream import Upstream, chunk, done, finish, reply

MESSAGE = "One message that is sent more often than it is meant."

SLOWLY = "0.5"
"""Seconds a word: what has to come while the message is answered has five seconds for it."""


async def say(service: Service, key: str | None = None, path: str = "/chat", **body: object) -> httpx.Response:
    """POST with a client of its own, and read the answer to its end."""
    headers = {} if key is None else {"Idempotency-Key": key}
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as client:
        return await client.post(path, json={"message": MESSAGE, **body}, headers=headers)


def run_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.headers["x-run-id"]


async def runs(service: Service) -> list[str]:
    """All runs there are, oldest first."""
    return [str(run_id) for (run_id,) in service.rows("SELECT id FROM runs ORDER BY pos")]


async def test_a_request_that_comes_ten_times_at_once_is_one_run(service: Service) -> None:
    answers = await asyncio.gather(*[say(service, "the-key", session_id="one") for _ in range(10)])
    assert len({run_of(answer) for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert {answer.headers.get("idempotency-replayed") for answer in answers} == {None, "true"}
    assert len({answer.text for answer in answers}) == 1
    assert await runs(service) == [run_of(answers[0])]
    await check_run(service, run_of(answers[0]))


async def test_the_key_of_another_request_is_refused(service: Service) -> None:
    run_id = run_of(await say(service, "the-key", session_id="one"))
    for other in (
        await say(service, "the-key", session_id="one", message="Something else."),
        await say(service, "the-key", session_id="two"),
        await say(service, "the-key", session_id="one", parent_id=None),
        await say(service, "the-key", path="/query", prompt=MESSAGE),
        await say(service, "the-key", path=f"/runs/{run_id}/retry"),
        await say(service, session_id="one", message="Something else.", request_id="the-key"),
    ):
        assert other.status_code == 422
        assert other.json()["code"] == "idempotency_conflict"
    assert await runs(service) == [run_id]
    assert [await service.answer(run_id)] == [MESSAGE]


async def test_the_key_stands_in_header_body_or_query(service: Service) -> None:
    run_id = run_of(await say(service, "the-key", session_id="one"))
    in_body = await say(service, session_id="one", request_id="the-key")
    query = {"message": MESSAGE, "session_id": "one", "request_id": "the-key"}
    in_query = await service.client.get("/chat", params=query)
    as_json = await say(service, "the-key", session_id="one", stream=False)
    for again in (in_body, in_query, as_json):
        assert run_of(again) == run_id
        assert again.headers["idempotency-replayed"] == "true"
    assert in_query.text == in_body.text
    assert as_json.json()["answer"] == MESSAGE
    assert await runs(service) == [run_id]


async def test_a_question_is_one_run_streamed_or_not(serve: Serve) -> None:
    gate = asyncio.Event()
    async with Upstream(reply(chunk("Half "), gate, chunk("and half."), finish(), done())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        question: Any = {"json": {"prompt": "Why?"}, "headers": {"Idempotency-Key": "the-key"}}
        async with service.stream("POST", "/query/stream", **question) as stream:
            while (await anext(stream)).data != "Half ":
                pass
        waiting = asyncio.create_task(service.client.post("/query", **question))  # its user wants no stream any more
        async with service.stream("POST", "/query/stream", **question) as stream:
            await anext(stream)
            gate.set()
            streamed = [frame async for frame in stream]
        answer = await waiting
        assert answer.json() == {"model": "scripted", "answer": "Half and half."}
        assert (answer.headers["idempotency-replayed"], text_of(streamed)) == ("true", "Half and half.")
        other = await service.client.post("/query", json={"prompt": "How?"}, headers=question["headers"])
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
        other = await say(service, "the-key", path="/query/stream", prompt="Why?", model="scripted")
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
        assert await runs(service) == [run_of(answer)]


async def test_the_same_request_after_a_kill_is_the_same_run(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.05")
    request = {"json": {"message": MESSAGE, "session_id": "one"}, "headers": {"Idempotency-Key": "the-key"}}
    seen: list[Frame] = []
    async with service.stream("POST", "/chat", **request) as stream:
        async for frame in stream:
            seen.append(frame)
            if len(seen) == 4:
                break
        await service.restart()
    answers = await asyncio.gather(*[say(service, "the-key", session_id="one") for _ in range(3)])
    run_id = run_of(answers[0])
    assert {run_of(answer) for answer in answers} == {run_id}
    assert {answer.headers["idempotency-replayed"] for answer in answers} == {"true"}
    whole = await service.follow(run_id)
    assert whole[: len(seen)] == seen
    assert text_of(whole) == MESSAGE
    assert await runs(service) == [run_id]
    assert (await say(service, "the-key", session_id="two")).status_code == 422
    await check_run(service, run_id)


async def test_a_key_that_was_used_is_claimed_before_the_session_is_busy(service: Service) -> None:
    first, again = await asyncio.gather(*[say(service, "the-key", session_id="one") for _ in range(2)])
    other = await say(service, "another-key", session_id="one")
    assert run_of(first) == run_of(again) != run_of(other)


async def test_of_two_messages_in_one_session_one_wins(serve: Serve) -> None:
    service = await serve(STREAM_DELAY=SLOWLY)
    later = {"Prefer": "respond-async"}
    answers = await asyncio.gather(
        *[service.client.post("/chat", json={"message": message, "session_id": "one"}, headers=later)
          for message in (MESSAGE, "No, this one, and it is not short either.")]
    )  # fmt: skip
    winner, loser = sorted(answers, key=lambda answer: answer.status_code)
    assert (winner.status_code, loser.status_code) == (202, 409)
    assert loser.json()["code"] == "run_in_progress"
    assert [loser.json()["run_id"]] == [winner.json()["run_id"]] == await runs(service)
    await service.client.post(f"/runs/{winner.json()['run_id']}/cancel")
    await check_run(service, winner.json()["run_id"])
    assert len((await service.client.get("/sessions/one/messages")).json()["messages"]) == 2


async def test_messages_that_queue_are_answered_in_turn(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.3")
    first = await service.begin("The first one of four.", session_id="one")
    others = [await service.begin(f"Number {number}.", session_id="one", on_busy="queue") for number in (2, 3, 4)]
    assert (await service.client.get(f"/runs/{others[-1]}")).json()["status"] == "queued"
    assert text_of(await service.follow(others[-1])) == "Number 4."
    for run_id in (first, *others):
        assert (await check_run(service, run_id))["status"] == "completed"
    messages = (await service.client.get("/sessions/one/messages")).json()["messages"]
    by_id = {message["message_id"]: message for message in messages}
    leaf, branch = (await service.client.get("/sessions/one")).json()["leaf_id"], []
    while leaf is not None:
        branch.append(by_id[leaf]["content"])
        leaf = by_id[leaf]["parent_id"]
    said = ["The first one of four.", "Number 2.", "Number 3.", "Number 4."]
    assert branch[::-1] == [content for content in said for _ in range(2)]


@pytest.mark.parametrize("on_busy", ["queue", "interrupt"])
async def test_a_queue_outlives_the_process(serve: Serve, on_busy: str) -> None:
    service = await serve(STREAM_DELAY="0.2")
    first = await service.begin(MESSAGE, session_id="one")
    second = await service.begin("Next.", session_id="one", on_busy=on_busy)
    await service.restart()
    assert (await check_run(service, first))["status"] in ("completed", "cancelled")
    assert (await check_run(service, second))["status"] == "completed"
    assert await service.answer(second) == "Next."


async def test_a_message_that_interrupts_stops_the_one_before(serve: Serve) -> None:
    service = await serve(STREAM_DELAY=SLOWLY)
    async with service.stream("POST", "/chat", json={"message": MESSAGE, "session_id": "one"}) as stream:
        seen = [await anext(stream), await anext(stream)]
        second = await service.begin("Stop that.", session_id="one", on_busy="interrupt")
        seen += [frame async for frame in stream]
    assert seen[-1].event == "run.cancelled"
    assert member(seen[-1], "reason") == "interrupted_by_next_message"
    stopped = await check_run(service, (seen[0].id or "").rpartition(".")[0])
    assert MESSAGE.startswith(await service.answer(str(stopped["run_id"])))
    assert (await check_run(service, second))["status"] == "completed"
    assert await service.answer(second) == "Stop that."


async def test_a_queued_message_can_be_taken_back(serve: Serve) -> None:
    service = await serve(STREAM_DELAY=SLOWLY)
    first = await service.begin(MESSAGE, session_id="one")
    second = await service.begin("Never mind.", session_id="one", on_busy="queue")
    third = await service.begin("And?", session_id="one", on_busy="queue")
    for run_id in (second, first):
        assert (await service.client.post(f"/runs/{run_id}/cancel")).json()["status"] == "cancelled"
        await check_run(service, run_id)
    assert await service.answer(second) == ""
    assert (await check_run(service, third))["status"] == "completed"
    assert await service.answer(third) == "And?"


async def test_a_post_that_carries_its_cursor_attaches(service: Service) -> None:
    async with service.stream("POST", "/chat", json={"message": MESSAGE, "session_id": "one"}) as stream:
        seen = [await anext(stream) for _ in range(4)]
    run_id = (seen[0].id or "").rpartition(".")[0]
    headers = {"Last-Event-ID": seen[-1].id or ""}
    again = {"message": MESSAGE, "session_id": "one"}
    async with service.client.stream("POST", "/chat", json=again, headers=headers) as response:
        assert response.headers["x-run-id"] == run_id
        _, *rest = await read_all(response)
    assert text_of(seen + rest) == MESSAGE
    other = await service.client.post("/chat", json=again | {"message": "Something else."}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "cursor_mismatch")
    ended = await service.client.post("/chat", json=again, headers={"Last-Event-ID": rest[-1].id or ""})
    assert (ended.status_code, ended.content) == (204, b"")
    assert await runs(service) == [run_id]


async def test_a_get_that_repeats_the_active_message_attaches(serve: Serve) -> None:
    service = await serve(STREAM_DELAY=SLOWLY)
    query = {"message": MESSAGE, "session_id": "one"}
    async with service.stream("GET", "/chat", params=query) as first:
        opening = await anext(first)
        async with service.stream("GET", "/chat", params=query) as again:
            assert await anext(again) == opening
            [run_id] = await runs(service)
            other = await service.client.get("/chat", params=query | {"message": "Something else."})
            assert (other.status_code, other.json()["run_id"]) == (409, run_id)
            await service.client.post(f"/runs/{run_id}/cancel")
            assert [frame async for frame in again] == [frame async for frame in first]
    await check_run(service, run_id)
    async with service.stream("GET", "/chat", params=query | {"message": "Now it is new."}) as stream:
        await anext(stream)
    assert len(await runs(service)) == 2
