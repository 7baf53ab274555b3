"""An upstream that refuses, breaks off, stalls or answers with something else. What was shown of an answer is kept."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.live.checks import settled
from tests.live.dialogue import KEY, PROMPT, ask, dialogue, run_of
from tests.live.service import PATIENCE, Service, free_port, text_of
from tests.upstream import (
    Action,
    End,
    Raw,
    Reply,
    Request,
    chunk,
    completion,
    done,
    finish,
    refusal,
    reply,
    sse,
)

BODY = "canary-of-the-body"


async def failed(service: Service, code: str, *gates: asyncio.Event) -> tuple[dict[str, Any], str]:
    """Ask, and see it fail in every way that a client may look at it; the failure and what was shown before it."""
    run_id, frames = await ask(service, gates=gates)
    run = await settled(service, run_id)
    assert run["status"] == "failed"
    assert frames[-1].event == "run.failed"
    assert json.loads(frames[-1].data or "") == run["error"]
    assert run["error"]["code"] == code
    assert text_of(frames) == await service.answer(run_id)
    return run["error"], text_of(frames)


async def hung_up(request: Request) -> None:
    """The connection is closed, and so nobody generates for nobody."""
    await asyncio.wait_for(request.closed.wait(), PATIENCE)


async def test_a_refused_connection_fails_the_run_and_may_be_tried_again(tmp_path: Path) -> None:
    async with dialogue(tmp_path, BASE_URL=f"http://127.0.0.1:{free_port()}/v1") as (service, _):
        error, shown = await failed(service, "upstream_unreachable")
        assert error["retryable"]
        assert not shown
        answer = await service.client.post("/query", json={"prompt": PROMPT})
        assert (answer.status_code, answer.json()["code"]) == (502, "upstream_unreachable")
        await settled(service, answer.json()["run_id"])


async def test_refused_credentials_are_not_tried_again_and_nobody_reads_what_was_said(tmp_path: Path) -> None:
    body = {"error": {"message": f"Incorrect key {KEY}. {BODY}", "code": "invalid_api_key"}}
    async with dialogue(tmp_path, refusal(401, body)) as (service, upstream):
        error, shown = await failed(service, "upstream_auth")
        assert not error["retryable"]
        assert not shown
        [request] = upstream.requests
        assert request.headers["authorization"] == f"Bearer {KEY}"
        query = await service.client.post("/query", json={"prompt": PROMPT})
        assert (query.status_code, query.json()["code"]) == (502, "upstream_auth")
        run = await service.client.get(f"/runs/{query.json()['run_id']}")
        stream = await service.client.get(f"/runs/{query.json()['run_id']}/events?format=events")
        log = service.log.read_text()
        for text in (json.dumps(error), query.text, run.text, stream.text, log):
            assert not [canary for canary in (KEY, PROMPT, BODY) if canary in text]
        assert "invalid_api_key" in log  # the operator's to know
        assert "401" in log


async def test_no_log_and_no_response_repeats_key_prompt_or_what_the_upstream_said(tmp_path: Path) -> None:
    replies = (
        refusal(500, {"error": {"message": BODY}}),
        refusal(400, {"error": {"message": BODY, "code": BODY}}),
        reply(sse({"error": {"message": BODY, "code": BODY}})),
        reply(b"event: error\ndata: " + BODY.encode() + b"\n\n"),
        reply(f"data: {{{BODY}\n\n".encode()),
        reply(BODY.encode(), headers={"Content-Type": "text/html"}),
        Reply(200, {BODY: BODY}, (Raw(f"{BODY}\r\n".encode()), End.CLOSE)),
        Reply(200, {BODY: f"{BODY}\r\n{BODY}"}, ()),
    )
    async with dialogue(tmp_path, *replies, MODEL_RETRIES="0") as (service, _):
        for _reply in replies:
            response = await service.client.post("/chat", json={"message": PROMPT, "stream": False})
            assert response.status_code == 502
            run_id = response.json()["run_id"]
            seen = [response, *[await service.client.get(f"/runs/{run_id}{path}") for path in ("", "/events")]]
            for text in (*[each.text for each in seen], service.log.read_text()):
                assert not [canary for canary in (KEY, PROMPT, BODY) if canary in text]
            await settled(service, run_id)


async def test_a_rate_limit_is_waited_for_as_long_as_the_upstream_asks(tmp_path: Path) -> None:
    busy = refusal(429, retry_after="1")
    async with dialogue(tmp_path, busy, completion("Hello"), MODEL_RETRIES="1") as (service, upstream):
        asking = asyncio.create_task(ask(service))
        await upstream.request(0)
        refused = asyncio.get_running_loop().time()
        await upstream.request(1)
        assert asyncio.get_running_loop().time() - refused > 0.9
        run_id, frames = await asking
        assert (await settled(service, run_id))["status"] == "completed"
        assert text_of(frames) == "Hello"


async def test_a_rate_limit_that_lasts_fails_the_run(tmp_path: Path) -> None:
    async with dialogue(tmp_path, refusal(429, retry_after="1"), MODEL_RETRIES="1") as (service, upstream):
        error, _ = await failed(service, "upstream_rate_limited")
        assert error["retryable"]
        assert len(upstream.requests) == 2


async def test_a_rate_limit_that_asks_for_minutes_fails_the_run_at_once(tmp_path: Path) -> None:
    async with dialogue(tmp_path, refusal(429, retry_after="300")) as (service, upstream):
        error, _ = await failed(service, "upstream_rate_limited")
        assert error["retryable"]
        assert len(upstream.requests) == 1


async def test_a_rate_limit_that_cannot_be_read_is_waited_for_as_any_failure(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    waits = ("soon", "-1", "nan", "1e999", "")
    replies = [each for wait in waits for each in (refusal(429, retry_after=wait), completion("Hello"))]
    async with dialogue(tmp_path, *replies, MODEL_RETRIES="1") as (service, upstream):
        for number, wait in enumerate(waits, 1):
            with subtests.test(wait):
                run_id, _ = await ask(service)
                assert (await settled(service, run_id))["status"] == "completed"
                assert len(upstream.requests) == 2 * number


async def test_an_upstream_in_trouble_is_asked_again_and_the_answer_comes_once(tmp_path: Path) -> None:
    replies = refusal(500), refusal(503), completion("Hello ", "world")
    async with dialogue(tmp_path, *replies) as (service, upstream):
        run_id, frames = await ask(service)
        assert (await settled(service, run_id))["status"] == "completed"
        assert text_of(frames) == "Hello world"
        assert len(upstream.requests) == 3
        assert upstream.requests[0].body == upstream.requests[2].body


async def test_an_upstream_that_stays_in_trouble_is_asked_no_more_than_was_set(tmp_path: Path) -> None:
    async with dialogue(tmp_path, refusal(503), MODEL_RETRIES="1") as (service, upstream):
        error, _ = await failed(service, "upstream_unavailable")
        assert error["retryable"]
        assert len(upstream.requests) == 2


async def test_a_request_that_is_wrong_is_not_sent_again(tmp_path: Path) -> None:
    wrong = [refusal(status) for status in (400, 404, 413, 422)]
    async with dialogue(tmp_path, *wrong) as (service, upstream):
        for number in range(len(wrong)):
            error, _ = await failed(service, "upstream_rejected")
            assert not error["retryable"]
            assert len(upstream.requests) == number + 1


HALF = chunk("Hello ")

BREAKS = {
    "closes": ((End.CLOSE,), "upstream_incomplete"),
    "resets": ((End.ABORT,), "upstream_incomplete"),
    "sends a chunk that is none": ((Raw(b"zz\r\n"), End.HOLD), "upstream_incomplete"),
    "sends JSON that is none": ((b"data: {oops\n\n", End.HOLD), "upstream_invalid"),
    "sends half an event": ((b'data: {"choices": [{"del', End.CLOSE), "upstream_incomplete"),
    "ends without a reason": ((), "upstream_incomplete"),
    "says done without a reason": ((done(), End.HOLD), "upstream_incomplete"),
    "reports an error": ((sse({"error": {"message": "overloaded", "code": 500}}), End.HOLD), "upstream_error"),
    "names an event error": ((b"event: error\ndata: {}\n\n", End.HOLD), "upstream_error"),
    "falls silent": ((End.HOLD,), "upstream_timeout"),
}


async def test_what_was_shown_is_kept_when_the_upstream(tmp_path: Path, subtests: pytest.Subtests) -> None:
    gates = [asyncio.Event() for _ in BREAKS]
    replies = [reply(HALF, gate, *actions) for gate, (actions, _) in zip(gates, BREAKS.values(), strict=True)]
    async with dialogue(tmp_path, *replies, REQUEST_TIMEOUT="1.5") as (service, upstream):
        for number, (how, (actions, code)) in enumerate(BREAKS.items()):
            with subtests.test(how):
                error, shown = await failed(service, code, gates[number])
                assert shown == "Hello "
                assert error["retryable"]
                assert len(upstream.requests) == number + 1  # what was shown is never said again
                if actions:
                    await hung_up(upstream.requests[number])


async def test_a_thought_that_was_shown_is_not_repeated_either(tmp_path: Path) -> None:
    thought = sse({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]})
    gate = asyncio.Event()
    async with dialogue(tmp_path, reply(thought, gate, End.ABORT), completion("Never")) as (service, upstream):
        _, shown = await failed(service, "upstream_incomplete", gate)
        assert shown == ""
        assert len(upstream.requests) == 1


async def test_before_anything_was_shown_the_next_answer_counts_when_the_upstream(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    replies = [each for actions, _ in BREAKS.values() for each in (reply(*actions), completion("Hello"))]
    async with dialogue(tmp_path, *replies, REQUEST_TIMEOUT="1.5", MODEL_RETRIES="1") as (service, upstream):
        for how in BREAKS:
            with subtests.test(how):
                asked = len(upstream.requests)
                run_id, frames = await ask(service)
                run = await settled(service, run_id)
                if len(upstream.requests) == asked + 2:
                    assert (run["status"], text_of(frames)) == ("completed", "Hello")
                else:  # not of the kind that is cured by asking again
                    assert (run["status"], text_of(frames), run["error"]["retryable"]) == ("failed", "", True)
                    await ask(service)  # what comes next in the script


SIGNS_OF_LIFE = (b": still here\n\n", b"data:\n\n", chunk(""), sse({"choices": []}), b"x")


@pytest.mark.parametrize("shown", ["", "Hello "])
async def test_signs_of_life_are_no_answer(tmp_path: Path, shown: str) -> None:
    # Each for longer than anybody waits here.
    replies = [reply(chunk(shown), *[action for _ in range(600) for action in (sign, 0.2)]) for sign in SIGNS_OF_LIFE]
    async with dialogue(tmp_path, *replies, REQUEST_TIMEOUT="1", MODEL_RETRIES="0") as (service, upstream):
        for error, kept in await asyncio.gather(*[failed(service, "upstream_timeout") for _ in SIGNS_OF_LIFE]):
            assert error["retryable"]
            assert kept == shown
        for request in upstream.requests:
            await hung_up(request)


async def test_a_head_that_never_comes_is_a_timeout(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # to the end, which is the client's to set
        writer.close()
        gone.set()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with dialogue(tmp_path, BASE_URL=url, REQUEST_TIMEOUT="1", MODEL_RETRIES="0") as (service, _):
            error, _ = await failed(service, "upstream_timeout")
            assert error["retryable"]
            await asyncio.wait_for(gone.wait(), PATIENCE)


MASQUERADES = {
    "an error object": refusal(200, {"error": {"message": BODY, "code": "insufficient_quota"}}),
    "a page": reply(b"<html><title>Sign in</title></html>", headers={"Content-Type": "text/html"}),
    "a page that claims to be a stream": reply(b"<html><title>Sign in</title></html>\n\n"),
    "a whole answer": refusal(200, {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}),
    "nothing": reply(),
    "nothing of no type": reply(headers={"Content-Type": None}),
    "a redirect": refusal(307, location="http://127.0.0.1:9/v1/chat/completions"),
    "no content": Reply(204, {"Transfer-Encoding": None}, ()),
    "a role and no text": reply(chunk("", role="assistant")),
}


async def test_success_that_is_none_is_never_an_empty_answer(tmp_path: Path, subtests: pytest.Subtests) -> None:
    async with dialogue(tmp_path, *MASQUERADES.values(), MODEL_RETRIES="0") as (service, _):
        for what in MASQUERADES:
            with subtests.test(what):
                run_id, frames = await ask(service)
                run = await settled(service, run_id)
                assert (run["status"], text_of(frames)) == ("failed", "")
                assert re.fullmatch("upstream_(incomplete|invalid|rejected|error)", run["error"]["code"])


async def test_an_empty_answer_that_was_meant_is_one(tmp_path: Path) -> None:
    async with dialogue(tmp_path, reply(chunk(""), finish(), done())) as (service, _):
        run_id, frames = await ask(service)
        assert (await settled(service, run_id))["status"] == "completed"
        assert text_of(frames) == ""


async def test_an_answer_with_a_reason_is_complete_however_the_upstream_leaves_it(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    endings: dict[str, tuple[Action, ...]] = {
        "an open socket behind the mark": (done(), End.HOLD),
        "an open socket and no mark": (End.HOLD,),
        "no mark": (),
        "a reset": (End.ABORT,),
    }
    whole = sse({"choices": [{"delta": {"content": "Hello "}, "finish_reason": "stop"}]})
    gates = [asyncio.Event() for _ in endings]
    replies = [reply(whole, gate, *actions) for gate, actions in zip(gates, endings.values(), strict=True)]
    async with dialogue(tmp_path, *replies, REQUEST_TIMEOUT="600") as (service, upstream):
        for number, (how, actions) in enumerate(endings.items()):
            with subtests.test(how):
                run_id, frames = await ask(service, gates=gates[number : number + 1])
                assert (await settled(service, run_id))["status"] == "completed"
                assert (text_of(frames), frames[-1].data) == ("Hello ", "[DONE]")
                if End.HOLD in actions:
                    await hung_up(upstream.requests[number])


async def test_a_session_goes_on_after_a_failure(tmp_path: Path) -> None:
    gate = asyncio.Event()
    replies = reply(HALF, gate, End.ABORT), completion("Better")
    async with dialogue(tmp_path, *replies) as (service, upstream):
        broken, _ = await ask(service, session_id="ses_1", gates=[gate])
        whole, frames = await ask(service, "And now?", session_id="ses_1")
        assert (await settled(service, broken))["status"] == "failed"
        assert (await settled(service, whole))["status"] == "completed"
        assert text_of(frames) == "Better"
        said = [(turn["role"], turn["content"]) for turn in upstream.requests[1].body["messages"]]
        assert said == [("user", PROMPT), ("assistant", "Hello "), ("user", "And now?")]


async def test_one_broken_answer_leaves_the_others_alone(tmp_path: Path) -> None:
    gate, shown = asyncio.Event(), asyncio.Event()
    replies = reply(chunk("Good "), gate, chunk("answer"), finish(), done()), reply(HALF, shown, End.ABORT)
    async with dialogue(tmp_path, *replies) as (service, upstream):
        async with service.stream("POST", "/chat", json={"message": PROMPT}) as received:
            first = await anext(received)
            await upstream.request(0)
            broken, _ = await ask(service, gates=[shown])
            assert (await settled(service, broken))["status"] == "failed"
            gate.set()
            rest = [frame async for frame in received]
        assert text_of(rest) == "Good answer"
        assert (await settled(service, run_of(first)))["status"] == "completed"
