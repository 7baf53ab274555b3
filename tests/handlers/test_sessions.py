import asyncio
from typing import Any

import pytest

from handlers.bodies import METADATA_BYTES, METADATA_DEPTH
from tests.patience import soon
from tests.scripted import ScriptedModel
from tests.serving import Client


async def ask(client: Client, text: str = "Hi", session_id: str = "s") -> str:
    """The run's id, when it has ended."""
    body = {"message": text, "session_id": session_id, "stream": False}
    return str((await client.post("/chat", json=body)).json()["run_id"])


async def create(client: Client, **body: object) -> dict[str, Any]:
    response = await client.post("/sessions", json=body)
    assert response.status_code == 201
    assert response.headers["location"] == f"/sessions/{response.json()['session_id']}"
    return dict(response.json())


# --- one session


async def test_session_is_created_as_asked(client: Client) -> None:
    metadata = {"tags": ["a", 1, None], "☃": {"deep": 1.5}}
    session = await create(client, session_id="s", user_id="ann", title="Talk", metadata=metadata)
    assert (session["session_id"], session["user_id"], session["title"]) == ("s", "ann", "Talk")
    assert (session["metadata"], session["message_count"], session["leaf_id"]) == (metadata, 0, None)
    assert (await client.get("/sessions/s")).json() == session | {"active_run": None, "summary": None}
    again = await client.post("/sessions/create", json={"session_id": "s"})
    assert (again.status_code, again.json()["code"]) == (409, "session_exists")


async def test_session_is_created_from_nothing(client: Client) -> None:
    response = await client.post("/sessions")
    assert response.status_code == 201
    assert response.json()["user_id"].startswith("anonymous-")


async def test_session_is_changed_where_asked(client: Client) -> None:
    created = await create(client, session_id="s", title="Old", metadata={"a": 1})
    changed = (await client.patch("/sessions/s", json={"title": "New"})).json()
    assert changed == created | {"title": "New", "updated_at": changed["updated_at"]}
    changed = (await client.patch("/sessions/s", json={"metadata": {}, "title": None})).json()
    assert (changed["title"], changed["metadata"]) == (None, {})
    assert (await client.patch("/sessions/s", json={})).json()["title"] is None


async def test_session_is_deleted_with_what_it_is_doing(
    client: Client, gate: asyncio.Event, model: ScriptedModel
) -> None:
    gate.clear()
    asking = asyncio.create_task(client.post("/chat", json={"message": "Hi", "session_id": "s"}))
    await model.asked(0)
    assert (await client.get("/sessions/s")).json()["active_run"]["status"] == "running"
    response = await client.delete("/sessions/s")
    assert (response.status_code, response.text) == (204, "")
    assert "event: run.cancelled" in (await soon(asking)).text
    assert (await client.get("/sessions/s")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sessions/unknown"),
        ("PATCH", "/sessions/unknown"),
        ("DELETE", "/sessions/unknown"),
        ("GET", "/sessions/unknown/messages"),
        ("GET", "/sessions/unknown/events"),
    ],
)
async def test_session_that_is_not_there_is_not_found(client: Client, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


# --- metadata


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_metadata_is_for_labels(client: Client, method: str) -> None:
    await create(client, session_id="s")
    path = "/sessions/s" if method == "PATCH" else "/sessions"
    fits = {"a": "x" * (METADATA_BYTES - len('{"a": ""}'))}
    assert (await client.request(method, path, json={"metadata": fits})).is_success
    response = await client.request(method, path, json={"metadata": {"a": fits["a"] + "x"}})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("depth", [1, METADATA_DEPTH, METADATA_DEPTH + 1, 921, 990, 100_000])
async def test_metadata_that_is_taken_can_be_given_back(client: Client, depth: int) -> None:
    for inside, outside in (b'{"a": ', b"}"), (b"[", b"]"):
        nested = b'{"a": ' + inside * (depth - 1) + b"1" + outside * (depth - 1) + b"}"
        raw = b'{"metadata": ' + nested + b"}"
        response = await client.post("/sessions", content=raw, headers={"Content-Type": "application/json"})
        assert response.status_code in ((201,) if depth <= METADATA_DEPTH else (400, 422))
        assert (await client.get("/sessions")).is_success


@pytest.mark.parametrize("value", [b"1e999", b"-1e999", b"NaN", b'"\\ud800"', b"9" * 5_000])
async def test_metadata_that_could_not_be_given_back_is_refused(client: Client, value: bytes) -> None:
    raw = b'{"metadata": {"a": ' + value + b"}}"
    response = await client.post("/sessions", content=raw, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_json")
    assert (await client.get("/sessions")).json() == {"sessions": [], "next": None}


# --- lists


async def test_sessions_are_listed_by_user_in_pages(client: Client) -> None:
    for number in range(5):
        await create(client, session_id=f"s{number}", user_id="ann" if number else "bob")
    page = (await client.get("/sessions", params={"user_id": "ann", "limit": 3})).json()
    assert [session["session_id"] for session in page["sessions"]] == ["s4", "s3", "s2"]
    page = (await client.get("/sessions", params={"user_id": "ann", "limit": 3, "after": page["next"]})).json()
    assert [session["session_id"] for session in page["sessions"]] == ["s1"]
    assert page["next"] is None
    response = await client.get("/sessions", params={"after": "nonsense"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


async def test_messages_are_listed_from_the_latest_in_pages(client: Client) -> None:
    await ask(client, "One")
    run_id = await ask(client, "Two")
    page = (await client.get("/sessions/s/messages", params={"limit": 3})).json()
    assert [message["content"] for message in page["messages"]] == ["Hello there", "Two", "Hello there"]
    assert page["leaf_id"] == page["messages"][-1]["message_id"]
    assert [message["run_id"] for message in page["messages"][1:]] == [None, run_id]
    assert [message["role"] for message in page["messages"]] == ["assistant", "user", "assistant"]
    page = (await client.get("/sessions/s/messages", params={"limit": 3, "before": page["next"]})).json()
    assert [message["content"] for message in page["messages"]] == ["One"]
    assert page["next"] is None
    response = await client.get("/sessions/s/messages", params={"before": "unknown"})
    assert response.status_code == 422


async def test_times_are_in_utc_to_the_millisecond(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_123_456_789)
    run_id = await ask(client)
    expected = "2023-11-14T22:13:20.123Z"
    session = (await client.get("/sessions/s")).json()
    assert (session["created_at"], session["updated_at"]) == (expected, expected)
    run = (await client.get(f"/runs/{run_id}")).json()
    assert (run["created_at"], run["finished_at"]) == (expected, expected)
    assert (await client.get("/sessions/s/messages")).json()["messages"][0]["created_at"] == expected


# --- whatever the session is doing


async def test_idle_session_has_nothing_to_follow(client: Client) -> None:
    run_id = await ask(client)
    response = await client.get("/sessions/s/events")
    assert (response.status_code, response.headers["cache-control"]) == (204, "no-store")
    response = await client.get("/sessions/s/events", headers={"Last-Event-ID": f"{run_id}.3"})
    assert response.status_code == 204


async def test_session_is_followed_to_the_end_of_what_was_seen_and_then_anew(
    client: Client, gate: asyncio.Event, model: ScriptedModel
) -> None:
    first = await ask(client)
    other = await ask(client, session_id="t")
    gate.clear()
    asking = asyncio.create_task(client.post("/chat", json={"message": "More", "session_id": "s"}))
    await model.asked(2)
    following = [
        asyncio.create_task(client.get("/sessions/s/events", headers=headers))
        for headers in ({}, {"Last-Event-ID": f"{first}.3"}, {"Last-Event-ID": f"{other}.1"})
    ]
    rest = await client.get("/sessions/s/events", headers={"Last-Event-ID": f"{first}.2"})
    assert rest.text == f"id: {first}.2\n\nid: {first}.3\ndata: [DONE]\n\n"
    gate.set()
    whole = (await soon(asking)).text
    assert [(await soon(follower)).text for follower in following] == [whole] * 3


async def test_session_is_followed_in_the_format_that_is_asked_for(client: Client) -> None:
    run_id = await ask(client)
    path, headers = "/sessions/s/events", {"Last-Event-ID": f"{run_id}.2"}
    response = await client.get(path, params={"format": "events"}, headers=headers)
    assert "event: run.completed" in response.text
    assert (await client.get(path, params={"format": "xml"}, headers=headers)).status_code == 422
