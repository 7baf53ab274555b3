"""Those who show a wrong key, and those who want to be somebody new; and what the operator sees of all refusals."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from tests.handlers.test_identity import made, said
from tests.handlers.test_limits import Clock, at, limited, refused, say
from tests.handlers.test_metrics import scraped, values
from tests.handlers.test_tokens import SECRET, bearer, signed
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, Exchange, served


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def app(tmp_path: Path, clock: Clock) -> AsyncIterator[Starlette]:
    settings: dict[str, Any] = {"auth": "jwt", "jwt_secret": SECRET, "anonymous_users": True}
    async with limited(tmp_path, clock, **settings, wrong_key_rate="2/minute", anonymous_rate="2/minute") as app:
        yield app


WRONG = ["parley_wrong", "anon_x.y", signed(exp=-60)]


async def test_who_shows_many_wrong_keys_has_to_wait(app: Starlette, clock: Clock) -> None:
    async with at(app) as client, at(app, "203.0.113.8") as other:
        for wrong in WRONG[:2]:
            assert said(await client.get("/sessions", headers=bearer(wrong))) == (401, "unauthorized")
        for wrong in WRONG:
            late = await client.get("/sessions", headers=bearer(wrong))
            refused(late, "rate_limited", "wrong-keys-60s")
            assert late.headers["retry-after"] == "60"
        refused(await client.get("/runs/run_x/events?ticket=wrong"), "rate_limited", "wrong-keys-60s")
        refused(await client.post("/users/anonymous", headers=bearer("anon_x.y")), "rate_limited", "wrong-keys-60s")
        openai = await client.get("/v1/models", headers=bearer("sk-wrong"))
        assert (openai.status_code, openai.json()["error"]["code"]) == (429, "rate_limited")
        assert said(await other.get("/sessions", headers=bearer(WRONG[0]))) == (401, "unauthorized")
        clock.now += 60
        assert said(await client.get("/sessions", headers=bearer(WRONG[0]))) == (401, "unauthorized")


async def test_a_right_key_is_taken_however_many_wrong_ones_came_before(app: Starlette) -> None:
    key = await made(Client(app), "front")
    async with at(app) as client:
        ours = (await client.post("/users/anonymous")).json()["token"]
        for _ in range(3):
            wrong = await client.get("/sessions", headers=bearer("parley_wrong"))
        assert wrong.status_code == 429
        for right in (key, bearer(signed()), bearer(ours)):
            assert (await client.get("/sessions", headers=right)).status_code == 200
        run_id = (await client.post("/query", json={"prompt": "Hi"}, headers=key)).headers["x-run-id"]
        ticket = (await client.post(f"/runs/{run_id}/ticket", headers=key)).json()["events_url"]
        assert (await client.get(ticket)).status_code == 200


async def test_who_shows_nothing_is_not_counted(app: Starlette) -> None:
    async with at(app) as client:
        for _ in range(4):
            assert said(await client.get("/sessions")) == (401, "unauthorized")
        assert said(await client.get("/sessions", headers=bearer("parley_wrong"))) == (401, "unauthorized")


async def test_own_addresses_may_be_wrong_and_new_as_often_as_they_like(app: Starlette) -> None:
    async with at(app, "127.0.0.1") as client:
        for _ in range(4):
            assert said(await client.get("/sessions", headers=bearer("parley_wrong"))) == (401, "unauthorized")
            assert (await client.post("/users/anonymous")).status_code == 201


async def test_anonymous_users_are_made_at_a_rate(app: Starlette, clock: Clock) -> None:
    async with at(app) as client, at(app, "203.0.113.8") as other:
        tokens = [(await client.post("/users/anonymous")).json()["token"] for _ in range(2)]
        late = await client.post("/users/anonymous")
        refused(late, "rate_limited", "anonymous-60s")
        assert late.headers["retry-after"] == "60"
        assert (await client.post("/users/anonymous", headers=bearer(tokens[0]))).status_code == 201  # nobody new
        assert (await other.post("/users/anonymous")).status_code == 201
        clock.now += 60
        assert (await client.post("/users/anonymous")).status_code == 201


# --- what the operator sees


async def refusals(client: Client, headers: dict[str, str] | None = None) -> dict[str, float]:
    client.headers.update(headers or {})
    counted = values((await scraped(client))["parley_refusals"], "_total")
    return {reason: count for reason, count in counted.items() if count}


async def test_refusals_are_counted_by_reason(tmp_path: Path, clock: Clock) -> None:
    model = ScriptedModel(["Hello", STOP])
    async with limited(tmp_path, clock, model, request_rate="4/minute", daily_tokens=1) as app, at(app) as client:
        for _ in range(2):
            await say(client)
        assert await refusals(Client(app)) == {"budget": 1}
        for _ in range(4):
            await client.get("/sessions")
        assert await refusals(Client(app)) == {"budget": 1, "rate": 2}
        assert (await client.get("/sessions/s1/events")).status_code == 200  # sent away for a moment, and counted
        assert await refusals(Client(app)) == {"budget": 1, "rate": 3}


async def test_places_that_are_taken_are_counted(tmp_path: Path, clock: Clock) -> None:
    gate = asyncio.Event()
    model = ScriptedModel(["Hello ", gate, "there", STOP])
    async with limited(tmp_path, clock, model, max_runs=1) as app:
        exchange = Exchange(app, {"message": "Hi"})
        await exchange.until(b"Hello ")
        assert said(await Client(app).post("/chat", json={"message": "Hi"})) == (503, "service_full")
        gate.set()
        await soon(exchange.done)
        assert await refusals(Client(app)) == {"cap": 1}


async def test_those_who_are_not_let_in_are_counted(tmp_path: Path) -> None:
    async with served(tmp_path, auth="keys") as client:
        admin, front = await made(client, "operator", admin=True), await made(client, "front")
        for headers in ({}, bearer("parley_wrong")):
            assert (await client.get("/sessions", headers=headers)).status_code == 401
        assert said(await client.get("/metrics", headers=front)) == (403, "forbidden")
        assert said(await client.get("/sessions/nobody", headers=front)) == (404, "not_found")  # is no refusal
        assert await refusals(client, admin) == {"auth": 3}


async def test_every_reason_is_there_from_the_start_and_no_other_comes(client: Client) -> None:
    for path in ("/nothing", "/sessions/x", "/chat"):
        assert (await client.get(path)).is_error
    assert values((await scraped(client))["parley_refusals"], "_total") == {
        "rate": 0,
        "cap": 0,
        "budget": 0,
        "auth": 0,
        "origin": 0,
    }
