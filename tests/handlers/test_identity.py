"""Who is let in, and whom a request speaks for."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from chat.engine import Engine
from chat.errors import StoreUnavailableError
from chat.keys import Key, digest_of, new_key
from handlers import guards
from store import keys
from store.sql import SqlStore
from tests.scripted import ScriptedModel
from tests.serving import Client, served

OPEN = ["/health", "/chat/health", "/ready", "/docs", "/openapi.json", "/playground", "/static/app.js"]


def store_of(client: Client) -> SqlStore:
    engine: Engine = client.app.state.engine
    assert isinstance(engine.store, SqlStore)
    return engine.store


async def made(client: Client, name: str, *, admin: bool = False) -> dict[str, str]:
    """The header of a new key."""
    text = new_key()
    key = Key(name, digest_of(text), admin)
    assert await store_of(client)._database.write(lambda db: keys.add_key(db, key), durable=True)
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
async def closed(tmp_path: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setattr(guards, "KEY_SECONDS", 0.0)
    async with served(tmp_path, model, auth="keys") as client:
        yield client


def said(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def test_without_a_key_there_is_only_what_is_public(closed: Client) -> None:
    for path in OPEN:
        assert (await closed.get(path)).status_code == 200, path
    for path in ("/sessions", "/models", "/metrics", "/doctor/stream", "/nothing", "/health%0A"):
        refused = await closed.get(path)
        assert said(refused) == (401, "unauthorized"), path
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("header", ["Bearer parley_wrong", "Bearer ", "Basic eDp5", "parley_x", "Bearer \xe9"])
async def test_what_is_no_key_is_refused(closed: Client, header: str) -> None:
    await made(closed, "front")
    refused = await closed.get("/sessions", headers={b"Authorization": header.encode("latin-1")})
    assert said(refused) == (401, "unauthorized")


async def test_openai_clients_are_refused_in_their_own_way(closed: Client) -> None:
    refused = await closed.get("/v1/models", headers={"Authorization": "Bearer sk-wrong"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["type"]) == (401, "invalid_api_key", "invalid_request_error")


async def test_a_key_opens_everything_but_what_is_the_operators(closed: Client) -> None:
    front, operator = await made(closed, "front"), await made(closed, "operator", admin=True)
    answered = await closed.post("/query", json={"prompt": "Hi"}, headers=front)
    assert answered.json()["answer"] == "Hello there"
    assert said(await closed.get("/metrics", headers=front)) == (403, "forbidden")
    assert said(await closed.get("/metrics%0A", headers=front)) == (403, "forbidden")
    assert (await closed.get("/metrics", headers=operator)).status_code == 200


async def test_a_revoked_key_opens_nothing(closed: Client) -> None:
    front, other = await made(closed, "front"), await made(closed, "other")
    assert (await closed.get("/sessions", headers=front)).status_code == 200
    assert await store_of(closed)._database.write(lambda db: keys.delete_key(db, "front"), durable=True)
    assert said(await closed.get("/sessions", headers=front)) == (401, "unauthorized")
    assert (await closed.get("/sessions", headers=other)).status_code == 200


async def test_keys_are_looked_up_no_more_often_than_every_other_second(
    tmp_path: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, model, auth="keys") as client:
        front, looked = await made(client, "front"), 0
        listed = store_of(client).keys

        async def counted() -> object:
            nonlocal looked
            looked += 1
            return await listed()

        monkeypatch.setattr(store_of(client), "keys", counted)
        monkeypatch.setattr(guards, "KEY_SECONDS", 3600.0)
        for _ in range(3):
            assert (await client.get("/sessions", headers=front)).status_code == 200
        assert looked == 1


async def test_no_key_can_be_told_while_the_database_is_away(closed: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await made(closed, "front")

    async def away() -> object:
        raise StoreUnavailableError

    monkeypatch.setattr(store_of(closed), "keys", away)
    refused = await closed.get("/sessions", headers=front)
    assert said(refused) == (503, "store_unavailable")
    assert refused.headers["Retry-After"] == "2"


async def test_a_key_may_name_the_user_it_speaks_for(closed: Client) -> None:
    front = await made(closed, "front")
    named = await closed.post("/query", json={"prompt": "Hi"}, headers=front | {"X-User-Id": "ann"})
    assert named.headers["X-User-Id"] == "ann"
    told = await closed.post("/chat", json={"message": "Hi", "user_id": "ann"}, headers=front)
    assert told.headers["X-User-Id"] == "ann"
    nobody = await closed.post("/query", json={"prompt": "Hi"}, headers=front)
    assert nobody.headers["X-User-Id"].startswith("anonymous-")


async def test_a_request_names_one_user_and_not_two(closed: Client) -> None:
    front = await made(closed, "front") | {"X-User-Id": "ann"}
    for response in (
        await closed.post("/chat", json={"message": "Hi", "user_id": "bob"}, headers=front),
        await closed.get("/sessions?user_id=bob", headers=front),
        await closed.post("/chatkit?user_id=bob", json={"type": "threads.list"}, headers=front),
    ):
        assert said(response) == (403, "user_mismatch")
    openai = await closed.post(
        "/v1/chat/completions",
        json={"model": "scripted", "user": "bob", "messages": [{"role": "user", "content": "Hi"}]},
        headers=front,
    )
    assert (openai.status_code, openai.json()["error"]["code"]) == (403, "user_mismatch")
    wrong = await closed.get("/sessions", headers=front | {"X-User-Id": "a b"})
    assert said(wrong) == (422, "invalid_request")


async def test_without_authentication_a_header_names_nobody(client: Client) -> None:
    told = await client.post("/query", json={"prompt": "Hi"}, headers={"X-User-Id": "ann", "Authorization": "Bearer x"})
    assert told.headers["X-User-Id"].startswith("anonymous-")
    assert (await client.get("/metrics")).status_code == 200
