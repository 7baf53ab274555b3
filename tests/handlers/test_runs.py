import asyncio

import pytest

from chat.errors import ModelError
from chat.events import Usage
from chat.ports import Finished
from tests.patience import soon
from tests.scripted import ScriptedModel
from tests.serving import Client


async def run_of(client: Client, **body: object) -> str:
    response = await client.post("/chat", json={"message": "Hi", "session_id": "s", "stream": False} | body)
    return response.headers["x-run-id"] if response.is_success else str(response.json()["run_id"])


async def test_run_tells_how_it_went(client: Client, model: ScriptedModel) -> None:
    model.scripts = (["Hi", Finished("length", Usage(3, 1))],)
    run_id = await run_of(client, user_id="ann")
    run = (await client.get(f"/runs/{run_id}")).json()
    messages = (await client.get("/sessions/s/messages")).json()["messages"]
    assert [run["message_id"], run["answer_id"]] == [message["message_id"] for message in messages]
    assert (run["run_id"], run["session_id"], run["user_id"], run["model"]) == (run_id, "s", "ann", "scripted")
    assert (run["status"], run["finish_reason"], run["error"]) == ("completed", "length", None)
    assert run["usage"] == {"input_tokens": 3, "output_tokens": 1, "source": "reported"}
    assert (run["last_event"], run["events_url"]) == ("run.completed", f"/runs/{run_id}/events")


async def test_run_tells_why_it_failed(client: Client, model: ScriptedModel) -> None:
    model.scripts = ([ModelError("upstream_auth", "The model refused the key.", retryable=False)],)
    run = (await client.get(f"/runs/{await run_of(client)}")).json()
    assert (run["status"], run["finish_reason"], run["usage"]) == ("failed", None, None)
    assert run["error"] == {"code": "upstream_auth", "message": "The model refused the key.", "retryable": False}


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")])
async def test_run_that_is_not_there_is_not_found(client: Client, method: str, path: str) -> None:
    response = await client.request(method, f"/runs/unknown{path}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_run_is_followed_from_any_cursor_however_it_is_given(client: Client) -> None:
    run_id = await run_of(client)
    path = f"/runs/{run_id}/events"
    whole = (await client.get(path)).text
    for seq in range(3):
        expected = f"id: {run_id}.{seq}\n\n" + "".join(whole.partition(f"id: {run_id}.{seq + 1}\n")[1:])
        for after in (f"{seq}", f"{run_id}.{seq}"):
            assert (await client.get(path, params={"after": after})).text == expected
        headers = {"Last-Event-ID": f"{run_id}.{seq}"}
        assert (await client.get(path, headers=headers)).text == expected
        assert (await client.get(path, params={"after": "0"}, headers=headers)).text == expected  # as EventSource does
    assert (await client.get(path, params={"after": "3"})).status_code == 204


@pytest.mark.parametrize(
    ("after", "status", "code"),
    [
        ("4", 409, "cursor_ahead"),
        ("run_other.1", 409, "cursor_mismatch"),
        ("-1", 400, "invalid_cursor"),
        ("٣", 400, "invalid_cursor"),
        ("9" * 30, 400, "invalid_cursor"),
    ],
)
async def test_cursor_that_leads_nowhere_is_refused(client: Client, after: str, status: int, code: str) -> None:
    response = await client.get(f"/runs/{await run_of(client)}/events", params={"after": after})
    assert (response.status_code, response.json()["code"]) == (status, code)


async def test_cursor_into_a_log_that_is_gone_says_so(client: Client) -> None:
    run_id = await run_of(client)
    await client.app.state.engine.store.sweep(0)
    response = await client.get(f"/runs/{run_id}/events", params={"after": "1"})
    assert (response.status_code, response.json()["code"]) == (410, "cursor_expired")
    whole = await client.get(f"/runs/{run_id}/events")
    assert whole.text == f"id: {run_id}.0\n\nid: {run_id}.2\ndata: Hello there\n\nid: {run_id}.3\ndata: [DONE]\n\n"


async def test_run_is_cancelled_once(client: Client, gate: asyncio.Event, model: ScriptedModel) -> None:
    gate.clear()
    asking = asyncio.create_task(client.post("/chat", json={"message": "Hi", "session_id": "s"}))
    await model.asked(0)
    active = (await client.get("/sessions/s")).json()["active_run"]["run_id"]
    cancelled = await soon(client.post(f"/runs/{active}/cancel"))
    assert (cancelled.json()["status"], cancelled.json()["last_event"]) == ("cancelled", "run.cancelled")
    assert (await client.post(f"/runs/{active}/cancel")).json() == cancelled.json()
    assert (await soon(asking)).text.endswith('event: run.cancelled\ndata: {"reason": "requested"}\n\n')


async def test_message_is_answered_once_more(client: Client, model: ScriptedModel) -> None:
    first = await run_of(client)
    headers = {"Idempotency-Key": "k1"}
    response = await client.post(f"/runs/{first}/retry", json={"stream": False}, headers=headers)
    second = response.json()
    assert (second["answer"], second["run_id"] == first) == ("Hello there", False)
    again = await client.post(f"/runs/{first}/retry", json={"stream": False}, headers=headers)
    assert (again.json(), again.headers["idempotency-replayed"]) == (second, "true")
    assert len((await client.get("/sessions/s/messages")).json()["messages"]) == 3
    assert len(model.requests) == 2
