from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chat.errors import ModelError
from chat.events import Usage
from chat.ports import Finished
from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, served

PRICES = '{"scripted": {"input": 2, "cached": 1, "output": 8}}'
BROKEN = ModelError("upstream_incomplete", "It broke off.", retryable=True)


@pytest.fixture
async def client(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Client]:
    async with served(tmp_path, model, prices=PRICES) as client:
        yield client


async def ask(client: Client, session_id: str = "s", user_id: str = "ann") -> dict[str, Any]:
    """The run, when it has ended."""
    body = {"message": "Hello", "session_id": session_id, "user_id": user_id, "stream": False}
    response = await client.post("/chat", json=body)
    return dict((await client.get(f"/runs/{response.headers.get('x-run-id') or response.json()['run_id']}")).json())


async def test_run_shows_what_it_used_and_what_that_cost(client: Client, model: ScriptedModel) -> None:
    model.scripts = (["Hi", Finished("stop", Usage(30, 20, cached_tokens=10, reasoning_tokens=5))],)
    assert (await ask(client))["usage"] == {
        "input_tokens": 30,
        "output_tokens": 20,
        "cached_tokens": 10,
        "reasoning_tokens": 5,
        "source": "reported",
        "cost": 0.00021,
    }


async def test_run_that_broke_off_shows_an_estimate(client: Client, model: ScriptedModel) -> None:
    model.scripts = (["12345678", BROKEN],)
    run = await ask(client)
    assert (run["status"], run["error"]["code"]) == ("failed", "upstream_incomplete")
    usage = {"input_tokens": 2, "output_tokens": 2, "source": "estimated"}
    assert run["usage"] == usage | {"cost": 0.00002}
    log = (await client.get(f"/runs/{run['run_id']}/events?format=events")).text
    assert '"usage": {"input_tokens": 2, "output_tokens": 2, "source": "estimated"}' in log
    plain = (await client.get(f"/runs/{run['run_id']}/events")).text
    assert "usage" not in plain


async def test_sums_are_by_day_if_nothing_else_is_said(client: Client, model: ScriptedModel) -> None:
    model.scripts = (["Hi", Finished("stop", Usage(30, 20))], ["Hi", STOP])
    for _ in range(2):
        await ask(client)
    today = datetime.now(UTC).date().isoformat()
    body = (await client.get("/usage")).json()
    assert (body["by"], body["next"]) == ("day", None)
    assert body["usage"] == [
        {
            "key": today,
            "runs": 2,
            "input_tokens": 30 + 5,  # the second time with what was said before
            "output_tokens": 20 + 1,
            "cached_tokens": 0,
            "reasoning_tokens": 0,
            "estimated_runs": 1,
            "estimated_tokens": 6,
            "cost": 0.000238,
            "unpriced_tokens": 0,
        }
    ]


@pytest.mark.parametrize(("by", "keys"), [("session", ["a", "b"]), ("user", ["ann", "bob"]), ("model", ["scripted"])])
async def test_sums_are_by_what_is_asked(client: Client, by: str, keys: list[str]) -> None:
    await ask(client, "b", "bob")
    await ask(client, "a", "ann")
    found = (await client.get("/usage", params={"by": by})).json()
    assert [item["key"] for item in found["usage"]] == keys
    page = (await client.get("/usage", params={"by": by, "limit": 1})).json()
    rest = (await client.get("/usage", params={"by": by, "after": page["next"] or "z"})).json()
    assert page["usage"] + rest["usage"] == found["usage"]


async def test_sums_are_of_whom_and_when_is_asked(client: Client) -> None:
    await ask(client, "b", "bob")
    await ask(client, "a", "ann")
    today = datetime.now(UTC).date().isoformat()

    async def found(**which: str) -> list[str]:
        body = (await client.get("/usage", params={"by": "session"} | which)).json()
        return [item["key"] for item in body["usage"]]

    assert await found(user_id="bob") == ["b"]
    assert await found(session_id="a") == ["a"]
    assert await found(**{"from": today, "to": today}) == ["a", "b"]
    assert await found(to="2000-01-01") == []
    assert await found(**{"from": "2999-01-01"}) == []


async def test_deleted_session_is_still_counted(client: Client) -> None:
    await ask(client)
    before = (await client.get("/usage?by=session")).json()
    assert (await client.delete("/sessions/s")).status_code == 204
    assert (await client.get("/usage?by=session")).json() == before


@pytest.mark.parametrize(
    "query",
    [
        "by=month",
        "limit=0",
        "limit=201",
        "from=yesterday",
        "from=0",
        "to=2026-11-31",
        "to=",
        "from=2026-11-21&to=2026-11-20",
        "user_id=a%20b",
        "session_id=",
        "after=yesterday",
    ],
)
async def test_wrong_question_is_refused(client: Client, query: str) -> None:
    response = await client.get(f"/usage?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert "yesterday" not in response.text
