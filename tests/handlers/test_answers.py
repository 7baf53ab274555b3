"""A message comes in, and how its answer goes out: streamed, whole, or as a place to look."""

import asyncio
import json
from typing import Any

import pytest

from chat.errors import ModelError, StoreUnavailableError
from chat.sessions import Turn
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, follow
from tests.serving import Client

REFUSED = ModelError("upstream_rejected", "The model refused the request.", retryable=False)


def frames_of(run_id: str, *records: str) -> str:
    """The stream of these records, each with its id."""
    return "".join([f"id: {run_id}.{seq}{record}\n\n" for seq, record in enumerate(records)])


HELLO = ("", "\ndata: Hello ", "\ndata: there", "\ndata: [DONE]")


async def messages_of(client: Client, session_id: str) -> list[str]:
    body = (await client.get(f"/sessions/{session_id}/messages")).json()
    return [message["content"] for message in body["messages"]]


# --- how it goes out


async def test_answer_is_streamed_as_plain_text(client: Client) -> None:
    response = await client.post("/chat", json={"message": "Hi", "session_id": "ses_1", "user_id": "ann"})
    assert response.status_code == 200
    run_id = response.headers["x-run-id"]
    assert response.text == frames_of(run_id, *HELLO)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert (response.headers["x-session-id"], response.headers["x-user-id"]) == ("ses_1", "ann")
    assert response.headers["location"] == f"/runs/{run_id}/events"
    assert "idempotency-replayed" not in response.headers
    assert await messages_of(client, "ses_1") == ["Hi", "Hello there"]


async def test_answer_is_streamed_as_named_events(client: Client) -> None:
    response = await client.post("/chat", json={"message": "Hi", "format": "events"})
    records = [dict(line.split(": ", 1) for line in record.split("\n")) for record in response.text.split("\n\n")[:-1]]
    assert [record["event"] for record in records] == ["run.started", "text.delta", "text.delta", "run.completed"]
    assert json.loads(records[-1]["data"])["text_length"] == len("Hello there")


async def test_answer_is_waited_for(client: Client) -> None:
    response = await client.post("/chat", json={"message": "Hi", "stream": False})
    body = response.json()
    assert (body["status"], body["answer"], body["finish_reason"]) == ("completed", "Hello there", "stop")
    assert body["run_id"] == response.headers["x-run-id"]
    assert body["user_id"] == response.headers["x-user-id"]
    assert body["user_id"].startswith("anonymous-")


async def test_answer_is_left_to_be_fetched(client: Client, gate: asyncio.Event) -> None:
    gate.clear()
    response = await client.post("/chat", json={"message": "Hi"}, headers={"Prefer": "respond-async, wait=10"})
    assert (response.status_code, response.headers["preference-applied"]) == (202, "respond-async")
    assert response.json()["status"] == "running"
    gate.set()
    assert (await client.get(response.headers["location"])).text == frames_of(response.json()["run_id"], *HELLO)


async def test_question_gets_the_model_and_its_answer(client: Client) -> None:
    response = await client.post("/query", json={"prompt": "Hi"})
    assert response.json() == {"model": "scripted", "answer": "Hello there"}
    response = await client.post("/query/stream", json={"prompt": "Hi"})
    assert response.text == frames_of(response.headers["x-run-id"], *HELLO[:-1], "")
    assert len((await client.get("/sessions")).json()["sessions"]) == 2


@pytest.mark.parametrize("path", ["/query", "/chat"])
async def test_answer_that_failed_is_an_error_with_what_was_said(
    client: Client, model: ScriptedModel, path: str
) -> None:
    model.scripts = (["Hello ", REFUSED],)
    response = await client.post(path, json={"prompt": "Hi", "message": "Hi", "stream": False})
    body = response.json()
    assert response.status_code == body["status"] == 502
    assert (body["code"], body["detail"], body["retryable"]) == (REFUSED.code, REFUSED.message, False)
    assert (body["answer"], body["run_id"]) == (
        "Hello ",
        (await client.get(f"/runs/{body['run_id']}")).json()["run_id"],
    )


async def test_stream_that_failed_says_so_at_its_end(client: Client, model: ScriptedModel) -> None:
    model.scripts = (["Hello ", REFUSED],)
    response = await client.post("/chat", json={"message": "Hi"})
    failed = {"code": REFUSED.code, "message": REFUSED.message, "retryable": False}
    run_id = response.headers["x-run-id"]
    assert response.text == frames_of(run_id, *HELLO[:2], f"\nevent: run.failed\ndata: {json.dumps(failed)}")


async def test_question_whose_answer_was_stopped_has_none(
    client: Client, gate: asyncio.Event, model: ScriptedModel
) -> None:
    gate.clear()
    asking = asyncio.create_task(client.post("/query", json={"prompt": "Hi"}))
    await model.asked(0)
    [session] = (await client.get("/sessions")).json()["sessions"]
    active = (await client.get(f"/sessions/{session['session_id']}")).json()["active_run"]
    await client.post(f"/runs/{active['run_id']}/cancel")
    response = await soon(asking)
    assert (response.status_code, response.json()["code"]) == (409, "run_stopped")


# --- what comes in


async def test_message_over_the_limit_is_refused(client: Client) -> None:
    limit = client.app.state.service.message_limit
    for path, body in [
        ("/chat", {"message": "x" * (limit + 1)}),
        ("/query", {"prompt": "x" * (limit + 1)}),
        ("/api/chat", {"messages": [{"role": "user", "content": "x" * (limit + 1)}]}),
    ]:
        response = await client.post(path, json=body)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
        assert f"{limit:,}" in response.json()["detail"]
    assert (await client.get("/sessions")).json()["sessions"] == []


async def test_whole_conversation_is_taken_with_its_instructions(client: Client, model: ScriptedModel) -> None:
    turns = [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B"},
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": "C"},
    ]
    response = await client.post("/api/chat", json={"messages": turns, "sessionId": "ses_1", "stream": False})
    assert response.json()["answer"] == "Hello there"
    assert await messages_of(client, "ses_1") == ["A", "B", "C", "Hello there"]
    assert list(model.requests[0].request.messages) == [
        Turn("system", "Be brief\n\nBe kind"),
        Turn("user", "A"),
        Turn("assistant", "B"),
        Turn("user", "C"),
    ]
    await client.post("/api/chat", json={"messages": [{"role": "user", "content": "D"}], "session_id": "ses_1"})
    assert await messages_of(client, "ses_1") == ["A", "B", "C", "Hello there", "D", "Hello there"]


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "system", "content": "Be brief"}],
        [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}],
        [{"role": "user", "content": ""}],
    ],
)
async def test_conversation_that_ends_with_no_question_is_refused(client: Client, turns: object) -> None:
    response = await client.post("/api/chat", json={"messages": turns})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


async def test_edit_branches(client: Client) -> None:
    first = (await client.post("/chat", json={"message": "A", "session_id": "s", "stream": False})).json()
    await client.post("/chat", json={"message": "B", "session_id": "s", "parent_id": first["answer_id"]})
    edited = {"message": "C", "session_id": "s", "parent_id": None, "stream": False}
    edited_run = (await client.post("/chat", json=edited)).json()
    messages = (await client.get("/sessions/s/messages")).json()
    parents = {message["content"]: message["parent_id"] for message in messages["messages"][::2]}
    assert parents == {"A": None, "B": first["answer_id"], "C": None}
    assert messages["leaf_id"] == edited_run["answer_id"]


# --- never twice


async def test_same_key_and_message_get_the_same_answer(client: Client, model: ScriptedModel) -> None:
    body: dict[str, Any] = {"message": "Hi", "session_id": "s"}
    first = await client.post("/chat", json=body, headers={"Idempotency-Key": "k1"})
    again = await client.post("/chat", json=body | {"format": "text"}, headers={"Idempotency-Key": "k1"})
    assert again.text == first.text
    assert again.headers["idempotency-replayed"] == "true"
    whole = await client.post("/chat", json=body | {"stream": False, "request_id": "k1"})
    assert (whole.json()["answer"], whole.headers["idempotency-replayed"]) == ("Hello there", "true")
    header_first = await client.post("/chat", json=body | {"request_id": "k2"}, headers={"Idempotency-Key": "k1"})
    assert header_first.headers["x-run-id"] == first.headers["x-run-id"]
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat", {"message": "Ho", "session_id": "s"}),
        ("/chat", {"message": "Hi", "session_id": "t"}),
        ("/chat", {"message": "Hi", "session_id": "s", "user_id": "ann"}),
        ("/chat", {"message": "Hi", "session_id": "s", "parent_id": None}),
        ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}], "session_id": "s"}),
        ("/query", {"prompt": "Hi"}),
    ],
)
async def test_same_key_with_another_meaning_is_refused(client: Client, path: str, body: object) -> None:
    headers = {"Idempotency-Key": "k1"}
    await client.post("/chat", json={"message": "Hi", "session_id": "s"}, headers=headers)
    response = await client.post(path, json=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_conflict")


async def test_key_that_is_none_is_refused(client: Client) -> None:
    response = await client.post("/query", json={"prompt": "Hi"}, headers={"Idempotency-Key": "a b"})
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "key")


async def test_second_message_is_told_of_the_first(client: Client, gate: asyncio.Event, model: ScriptedModel) -> None:
    gate.clear()
    first = asyncio.create_task(client.post("/chat", json={"message": "Hi", "session_id": "s"}))
    await model.asked(0)
    response = await client.post("/chat", json={"message": "More", "session_id": "s"})
    gate.set()
    assert (response.status_code, response.json()["code"]) == (409, "run_in_progress")
    assert response.json()["run_id"] == (await soon(first)).headers["x-run-id"]


# --- EventSource, which can only GET


async def test_get_starts_and_its_repeat_attaches(client: Client, gate: asyncio.Event, model: ScriptedModel) -> None:
    gate.clear()
    first = asyncio.create_task(client.get("/chat", params={"message": "Hi", "session_id": "s"}))
    await model.asked(0)
    again = asyncio.create_task(client.get("/chat", params={"message": "Hi", "session_id": "s"}))
    await asyncio.sleep(0)
    gate.set()
    assert (await soon(first)).text == (await soon(again)).text
    assert await messages_of(client, "s") == ["Hi", "Hello there"]


async def test_head_starts_nothing(client: Client) -> None:
    response = await client.head("/chat", params={"message": "Hi"})
    assert (response.status_code, response.text) == (200, "")
    assert (await client.get("/sessions")).json()["sessions"] == []


async def test_process_that_shuts_down_sends_its_clients_away_politely(client: Client) -> None:
    await client.app.state.engine.drain(0)
    response = await client.get("/chat", params={"message": "Hi"})
    assert response.status_code == 200  # any other would make EventSource give up
    assert response.text.startswith("retry: ")
    assert 500 <= int(response.text.removeprefix("retry: ").strip()) <= 3_000
    response = await client.post("/chat", json={"message": "Hi"})
    assert (response.status_code, response.json()["code"]) == (503, "draining")
    assert response.headers["retry-after"] == "1"


# --- resume


async def test_repeated_post_goes_on_behind_its_cursor(client: Client, model: ScriptedModel) -> None:
    first = await client.post("/chat", json={"message": "Hi"})
    run_id = first.headers["x-run-id"]
    for seq in range(3):
        headers = {"Last-Event-ID": f"{run_id}.{seq}"}
        rest = await client.post("/chat", json={"message": "Hi"}, headers=headers)
        assert rest.text == f"id: {run_id}.{seq}\n\n" + "".join(first.text.partition(f"id: {run_id}.{seq + 1}\n")[1:])
        assert rest.headers["idempotency-replayed"] == "true"
    last = await client.post("/chat", json={"message": "Hi"}, headers={"Last-Event-ID": f"{run_id}.3"})
    assert (last.status_code, last.text) == (204, "")
    assert len(model.requests) == 1


async def test_repeated_retry_goes_on_behind_its_cursor(client: Client, model: ScriptedModel) -> None:
    asked = await client.post("/chat", json={"message": "Hi"})
    path = f"/runs/{asked.headers['x-run-id']}/retry"
    run_id = (await client.post(path)).headers["x-run-id"]
    assert run_id != asked.headers["x-run-id"]
    rest = await client.post(path, headers={"Last-Event-ID": f"{run_id}.2"})
    assert rest.text == f"id: {run_id}.2\n\nid: {run_id}.3\ndata: [DONE]\n\n"
    assert len(model.requests) == 2


@pytest.mark.parametrize(
    ("cursor", "status", "code"),
    [
        ("{other}.1", 409, "cursor_mismatch"),
        ("{run}.9", 409, "cursor_ahead"),
        ("run_unknown.1", 404, "not_found"),
        ("nonsense", 400, "invalid_cursor"),
        ("{run}." + "9" * 19, 400, "invalid_cursor"),
    ],
)
async def test_cursor_that_leads_nowhere_starts_nothing(
    client: Client, model: ScriptedModel, cursor: str, status: int, code: str
) -> None:
    run = (await client.post("/chat", json={"message": "Hi"})).headers["x-run-id"]
    other = (await client.post("/chat", json={"message": "Ho"})).headers["x-run-id"]
    headers = {"Last-Event-ID": cursor.format(run=run, other=other)}
    response = await client.post("/chat", json={"message": "Hi"}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
    if code == "cursor_mismatch":
        response = await client.post(f"/runs/{run}/retry", headers=headers)
        assert (response.status_code, response.json()["code"]) == (status, code)
    assert len(model.requests) == 2


SAID = {"role": "user", "content": "Hi"}
PROTOCOLS = [
    ("/chat", {"message": "Hi"}),
    ("/api/chat", {"id": "ui", "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}),
    ("/v1/chat/completions", {"messages": [SAID], "stream": True}),
    ("/v1/responses", {"input": "Hi", "stream": True}),
    ("/ag-ui", {"threadId": "agent", "runId": "mine", "messages": [SAID | {"id": "1"}]}),
]


@pytest.mark.parametrize(("path", "body"), PROTOCOLS, ids=[path for path, _ in PROTOCOLS])
async def test_cursors_mean_the_same_in_every_protocol(client: Client, path: str, body: dict[str, object]) -> None:
    run_id = (await client.post(path, json=body)).headers["x-run-id"]
    end = 3  # two words, and that it is complete

    async def behind(seq: int) -> tuple[int, str]:
        answer = await client.post(path, json=body, headers={"Last-Event-ID": f"{run_id}.{seq}"})
        return answer.status_code, answer.json().get("error", answer.json())["code"] if answer.is_error else ""

    if path != "/ag-ui":  # which counts its own frames, and tells the end again
        assert await behind(end) == (204, "")
        assert await behind(end + 1) == (409, "cursor_ahead")
    await client.app.state.engine.store.sweep(0)
    assert await behind(1) == (410, "cursor_expired")


# --- when things go wrong in between


async def test_stream_says_that_nothing_can_be_stored_and_keeps_the_cursor(
    client: Client, gate: asyncio.Event, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.clear()
    engine = client.app.state.engine
    asking = asyncio.create_task(client.post("/chat", json={"message": "Hi", "session_id": "s"}))
    await model.asked(0)
    [run] = [live.run for live in engine._live._runs.values()]
    following = follow(engine, run.id, 0)
    await soon(anext(following))

    async def fail(batch: object) -> None:
        raise StoreUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(engine.store, "commit", fail)
        gate.set()
        response = await soon(asking)
    *records, notice, retry, rest = response.text.split("\n\n")
    assert "\n\n".join(records) + "\n\n" == frames_of(run.id, *HELLO[:2])
    assert notice.startswith('event: stream.error\ndata: {"code": "store_unavailable"')
    assert retry.startswith("retry: ")
    assert rest == ""


async def test_stream_that_goes_on_elsewhere_ends_without_an_end(
    client: Client, gate: asyncio.Event, model: ScriptedModel
) -> None:
    gate.clear()
    asking = asyncio.create_task(client.post("/chat", json={"message": "Hi"}))
    await model.asked(0)
    await client.app.state.engine.drain(0)
    response = await soon(asking)
    *records, retry, rest = response.text.split("\n\n")
    assert "\n\n".join(records) + "\n\n" in frames_of(response.headers["x-run-id"], *HELLO[:2])
    assert (retry[:7], rest) == ("retry: ", "")


async def test_model_that_says_nothing_answers_nothing(client: Client, model: ScriptedModel) -> None:
    model.scripts = ([STOP],)
    response = await client.post("/query", json={"prompt": "Hi"})
    assert response.json() == {"model": "scripted", "answer": ""}
