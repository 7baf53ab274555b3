"""All that is a user's, to take along or to delete: who may, and what comes of it."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from chat.errors import StoreUnavailableError
from chat.events import Usage
from chat.ports import Finished
from store import users as user_rows
from tests.handlers.test_identity import made, store_of
from tests.handlers.test_tokens import SECRET, bearer, signed
from tests.patience import soon
from tests.scripted import ScriptedModel
from tests.serving import Client, served

Who = Mapping[str, str]


async def say(client: Client, user: str, session: str, who: Who | None = None) -> None:
    body = {"message": f"It is {user}", "session_id": session, "user_id": user, "stream": False}
    assert (await soon(client.post("/chat", json=body, headers=who))).status_code == 200


async def exported(client: Client, user: str, who: Who | None = None) -> list[dict[str, Any]]:
    response = await client.get(f"/users/{user}/export", headers=who)
    assert response.status_code == 200
    return [json.loads(line) for line in response.text.splitlines()]


async def sessions_of(client: Client, user: str, who: Who | None = None) -> list[str]:
    found = (await client.get("/sessions", params={"user_id": user}, headers=who)).json()["sessions"]
    return [session["session_id"] for session in found]


async def test_a_user_is_told_all_and_deleted(client: Client) -> None:
    for number in range(3):
        await say(client, "ann", f"anns-{number}")
    await say(client, "bob", "bobs")
    lines = await exported(client, "ann")
    assert lines[0]["parley"]["user_id"] == "ann"
    assert lines[-1] == {"end": {"lines": len(lines)}}
    texts = [line["message"]["content"] for line in lines if "message" in line]
    assert texts == ["It is ann", "Hello there"] * 3
    response = await client.delete("/users/ann")
    assert (response.status_code, response.content) == (204, b"")
    assert await sessions_of(client, "ann") == []
    assert await sessions_of(client, "bob") == ["bobs"]
    usage = (await client.get("/usage", params={"by": "user"})).json()["usage"]
    assert {item["key"]: item["runs"] for item in usage} == {user_rows.NOBODY: 3, "bob": 1}


async def test_more_sessions_than_are_listed_at_once_go(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.engine.DELETE_SESSIONS", 2)
    for number in range(5):
        await say(client, "ann", f"anns-{number}")
    assert (await client.delete("/users/ann")).status_code == 204
    assert await sessions_of(client, "ann") == []


async def test_an_export_says_how_it_is_kept(client: Client) -> None:
    await say(client, "ann", "anns")
    for method in ("GET", "HEAD"):
        response = await client.request(method, "/users/ann/export")
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/jsonl"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Content-Disposition"] == 'attachment; filename="parley.jsonl"'
        assert bool(response.content) == (method == "GET")


@pytest.mark.parametrize("user", ["nobody", "anonymous", "%00", "a%20b", "x" * 2000, "%F0%9F%98%80"])
async def test_who_has_nothing_is_not_there(client: Client, user: str) -> None:
    for response in (await client.delete(f"/users/{user}"), await client.get(f"/users/{user}/export")):
        problem = response.json()
        assert (response.status_code, problem["code"]) == (404, "not_found")
        assert problem["detail"] == "There is no such user."


async def test_a_user_may_be_called_anonymous(client: Client) -> None:
    """Which is what the public address of those without a name ends with."""
    await say(client, "anonymous", "theirs")
    assert len(await exported(client, "anonymous")) > 3
    assert (await client.delete("/users/anonymous")).status_code == 204


async def test_an_answer_that_is_being_written_is_stopped_first(
    client: Client, model: ScriptedModel, gate: asyncio.Event
) -> None:
    gate.clear()
    body = {"message": "Hi", "session_id": "anns", "user_id": "ann"}
    run = (await client.post("/chat", json=body, headers={"Prefer": "respond-async"})).json()["run_id"]
    asked = await soon(model.asked(0))
    assert (await soon(client.delete("/users/ann"))).status_code == 204
    await soon(asked.closed.wait())
    assert (await client.get(f"/runs/{run}")).status_code == 404
    assert (await client.get("/users/ann/export")).status_code == 404


# --- who may


async def both(client: Client, user: str, who: Who) -> list[int | str]:
    """The answers to export and deletion: the code, or that it was done."""
    told = await client.get(f"/users/{user}/export", headers=who)
    deleted = await client.delete(f"/users/{user}", headers=who)
    return [answer.status_code if answer.is_success else answer.json()["code"] for answer in (told, deleted)]


async def test_a_token_may_do_so_for_its_user(tmp_path: Path, model: ScriptedModel) -> None:
    async with served(tmp_path, model, auth="jwt", jwt_secret=SECRET, anonymous_users=True) as client:
        ann, bob = bearer(signed(sub="ann")), bearer(signed(sub="bob"))
        await say(client, "ann", "anns", ann)
        await say(client, "bob", "bobs", bob)
        assert await both(client, "ann", bob) == ["not_found", "not_found"]
        assert await both(client, "nobody", bob) == ["not_found", "not_found"]
        assert await both(client, "ann", ann) == [200, 204]
        assert await both(client, "ann", ann) == ["not_found", "not_found"]
        assert await sessions_of(client, "bob", bob) == ["bobs"]
        new = (await client.post("/users/anonymous")).json()
        await say(client, new["user_id"], "theirs", bearer(new["token"]))
        assert await both(client, new["user_id"], bearer(new["token"])) == [200, 204]


async def test_a_key_may_do_so_for_the_user_that_it_names(tmp_path: Path, model: ScriptedModel) -> None:
    async with served(tmp_path, model, auth="keys") as client:
        front = await made(client, "front")
        admin = await made(client, "admin", admin=True)
        for user in ("ann", "bob", "carl"):
            await say(client, user, f"{user}s", front)
        assert (await client.delete("/users/ann")).status_code == 401
        assert await both(client, "ann", front) == ["forbidden", "forbidden"]
        assert await both(client, "nobody", front) == ["forbidden", "forbidden"]
        assert await both(client, "ann", {**front, "X-User-Id": "bob"}) == ["not_found", "not_found"]
        assert await both(client, "ann", {**front, "X-User-Id": "ann"}) == [200, 204]
        # Who names a user speaks for that one, whatever the key may do besides.
        assert await both(client, "carl", {**admin, "X-User-Id": "bob"}) == ["not_found", "not_found"]
        assert await both(client, "carl", admin) == [200, 204]
        assert await both(client, "carl", admin) == ["not_found", "not_found"]
        assert await sessions_of(client, "bob", front) == ["bobs"]


# --- how it is sent


async def test_a_stalled_reader_is_dropped(tmp_path: Path, model: ScriptedModel) -> None:
    async with served(tmp_path, model, send_timeout=0.05) as client:
        await say(client, "ann", "anns")
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/users/ann/export",
            "query_string": b"",
            "headers": [],
            "app": client.app,
        }
        begun = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                begun.set()
                await asyncio.Event().wait()

        await soon(client.app(scope, receive, send))
        assert begun.is_set()
        assert client.app.state.limits.open_streams == 0


async def test_an_export_has_a_place_among_the_streams(tmp_path: Path, model: ScriptedModel) -> None:
    async with served(tmp_path, model, max_streams=1) as client:
        await say(client, "ann", "anns")
        limits = client.app.state.limits
        leave = limits.seat(None, None)
        refused = await client.get("/users/ann/export")
        assert (refused.status_code, refused.json()["code"]) == (503, "service_full")
        leave()
        assert len(await exported(client, "ann")) > 3
        assert limits.open_streams == 0


async def test_who_deletes_everything_has_used_today_what_was_used(tmp_path: Path) -> None:
    model = ScriptedModel(["Hello", Finished("stop", Usage(60, 40))])
    async with served(tmp_path, model, auth="jwt", jwt_secret=SECRET, daily_tokens=100) as client:
        ann = bearer(signed(sub="ann"))
        await say(client, "ann", "anns", ann)
        for _ in range(2):
            refused = await client.post("/chat", json={"message": "Hi", "session_id": "more"}, headers=ann)
            assert (refused.status_code, refused.json()["code"]) == (429, "budget_spent")
            await client.delete("/users/ann", headers=ann)
        await say(client, "bob", "bobs", bearer(signed(sub="bob")))


async def test_an_export_that_breaks_off_has_no_end(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await say(client, "ann", "anns")
    monkeypatch.setattr(user_rows, "LINES_BYTES", 1)
    read, count = store_of(client)._database.read, 0

    async def fail_later(work: Any) -> Any:
        nonlocal count
        count += 1
        if count > 4:
            raise StoreUnavailableError
        return await read(work)

    monkeypatch.setattr(store_of(client)._database, "read", fail_later)
    pieces: list[bytes] = []
    with pytest.raises(AssertionError):  # the client's own, for there is no end to what it is sent
        async with client.stream("GET", "/users/ann/export") as response:
            pieces += [piece async for piece in response.aiter_bytes()]
    assert "what was being sent broke off: store_unavailable" in caplog.text
