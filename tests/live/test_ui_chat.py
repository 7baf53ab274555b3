"""What the AI SDK's chat asks for, without the SDK: repetitions, mistakes, and the other client of the address."""

import asyncio
import json
from typing import Any

import pytest

from tests.live.conftest import Serve
from tests.live.service import Service
from tests.upstream import Upstream, chunk, completion, done, finish, refusal, reply

ASKED = {"id": "one", "messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}


async def test_same_body_never_generates_twice(serve: Serve) -> None:
    async with Upstream(completion("Once."), refusal(400), completion("Another."), completion("Keyed.")) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", MODEL_RETRIES="0")
        first = await service.client.post("/api/chat", json=ASKED)
        again = await service.client.post("/api/chat", json=ASKED)
        assert (first.text, again.headers["idempotency-replayed"]) == (again.text, "true")
        assert first.headers["x-vercel-ai-ui-message-stream"] == "v1"

        other = ASKED | {"id": "two"}
        assert "rejected" in (await service.client.post("/api/chat", json=other)).text
        assert "Another." in (await service.client.post("/api/chat", json=other)).text  # a failure is no answer

        anew, key = ASKED | {"trigger": "regenerate-message"}, {"Idempotency-Key": "key"}
        answers = [(await service.client.post("/api/chat", json=anew, headers=key)).text for _ in range(2)]
        assert answers[0] == answers[1]
        assert "Keyed." in answers[0]
        conflict = await service.client.post("/api/chat", json=other, headers=key)
        assert conflict.json()["code"] == "idempotency_conflict"
        assert len(upstream.requests) == 4


async def test_answer_in_progress_is_joined_and_not_asked_for_twice(serve: Serve) -> None:
    gate = asyncio.Event()
    async with Upstream(reply(chunk("Once."), gate, finish(), done())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        bodies = [ASKED, ASKED, ASKED | {"trigger": "regenerate-message"}]
        bodies.append({"id": "one", "trigger": "regenerate-message"})
        async with asyncio.TaskGroup() as group:
            posts = [group.create_task(service.client.post("/api/chat", json=body)) for body in bodies[:1]]
            await upstream.request(0)
            posts += [group.create_task(service.client.post("/api/chat", json=body)) for body in bodies[1:]]
            words = {"role": "user", "parts": [{"type": "text", "text": "Ho"}]}
            refused = await service.client.post("/api/chat", json={"id": "one", "message": words})
            assert refused.json()["code"] == "run_in_progress"
            while "\nparley_open_streams 4.0" not in (await service.client.get("/metrics")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            gate.set()
        assert len({post.result().text for post in posts}) == 1
        assert len(upstream.requests) == 1


async def test_stream_goes_on_behind_any_event_id(service: Service) -> None:
    whole = (await service.client.post("/api/chat", json=ASKED)).text.split("\n\n")
    cursors = [(place, record.partition("\n")[0]) for place, record in enumerate(whole) if record.startswith("id: ")]
    assert len(cursors) == 3
    for place, line in cursors[:-1]:
        headers = {"Last-Event-ID": line.removeprefix("id: ")}
        rest = await service.client.post("/api/chat", json=ASKED, headers=headers)
        assert rest.text.split("\n\n")[1 if place else 0 :] == whole[place + 1 if place else 0 :]


DEEP = '{"a":' * 80 + "1" + "}" * 80


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ({"trigger": "submit-message", "messages": []}, "invalid_request", "id: Field required"),
        ({"id": "one", "trigger": "submit-message"}, "invalid_request", "there is none"),
        ({"id": "one", "trigger": "regenerate-message"}, "not_found", "Nothing was answered"),
        (ASKED | {"id": "a b"}, "invalid_request", "id: String should match"),
        (ASKED | {"tools": {"a": {}, "submit_feedback": {}}}, "invalid_request", "tools: a name"),
        (ASKED | {"tools": {"a": {"parameters": json.loads(DEEP)}}}, "invalid_request", "64 levels deep"),
        (ASKED | {"model": "gpt-9"}, "model_not_allowed", "does not offer"),
        ({"id": "one", "message": {"id": "a", "role": "assistant", "parts": [
            {"type": "tool-f", "toolCallId": "1", "state": "output-available", "input": {}, "output": 1},
        ]}}, "invalid_request", "not known by its id"),
        ({"id": "one", "message": {"role": "assistant", "parts": [
            {"type": "tool-f", "toolCallId": "1", "state": "approval-responded",
             "approval": {"id": "run_1.1", "approved": True}},
        ]}}, "not_found", "no such run"),
    ],
)  # fmt: skip
async def test_wrong_requests_are_told_clearly(serve: Serve, body: dict[str, Any], code: str, told: str) -> None:
    service = await serve(TOOLS="examples.town_hall")
    problem = (await service.client.post("/api/chat", json=body)).json()
    assert (problem["code"], told in problem["detail"]) == (code, True)
    assert service.rows("SELECT count(*) FROM runs") == [(0,)]


async def test_long_answers_may_come_back_and_long_messages_are_refused(serve: Serve) -> None:
    service = await serve(MAX_MESSAGE_CHARS="10")
    answer = {"role": "assistant", "parts": [{"type": "text", "text": "Longer than that."}]}
    for text, status in (("Short", 200), ("Longer than that.", 422)):
        asked = {"role": "user", "parts": [{"type": "text", "text": text}]}
        response = await service.client.post("/api/chat", json={"id": "one", "messages": [asked, answer, asked]})
        assert response.status_code == status


async def test_decisions_reach_only_their_own_conversation(serve: Serve) -> None:
    service = await serve(TOOLS="tests.live.careful_tool")
    text = {"type": "text", "text": '/order {"article": "tea"}'}
    asked = await service.client.post("/api/chat", json={"id": "one", "message": {"role": "user", "parts": [text]}})
    run_id = asked.headers["x-run-id"]
    part = {"type": "tool-order", "toolCallId": "call_order", "state": "approval-responded"}
    part["approval"] = {"id": f"{run_id}.call_order", "approved": True}  # type: ignore[assignment]
    for session_id, status in (("two", 404), ("one", 200)):
        body = {"id": session_id, "message": {"id": "theirs", "role": "assistant", "parts": [part]}}
        response = await service.client.post("/api/chat", json=body)
        assert response.status_code == status
    assert '"messageId": "theirs"' in response.text
    assert (await service.client.get("/runs/" + run_id)).json()["status"] == "completed"
    assert (await service.client.post("/api/chat", json=body)).text == response.text  # said again, it is no other


async def test_references_body_is_still_answered_as_its_clients_expect(service: Service) -> None:
    for extra in ({}, {"id": "one"}):
        body = {"messages": [{"role": "user", "content": "Say hi", "parts": []}], "sessionId": "three", **extra}
        answer = await service.client.post("/api/chat", json=body)
        assert "data: Say \n" in answer.text
        assert "x-vercel-ai-ui-message-stream" not in answer.headers
