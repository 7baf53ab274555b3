"""Which models there are, and that a request may name one of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.described import Description
from tests.live.service import parse_frame
from tests.scripted import ScriptedModel
from tests.serving import Client, served, served_as_set


@pytest.fixture
async def offering(tmp_path: Path) -> AsyncIterator[Client]:
    """A service with two models of its own; nobody answers as the other one."""
    settings = {"base_url": "http://127.0.0.1:9/v1", "model_name": "dead", "model_retries": 0, "stream_delay": 0}
    async with served_as_set(tmp_path, allowed_models="echo", **settings) as client:
        yield client


async def test_models_are_listed_the_default_first(offering: Client) -> None:
    response = await offering.get("/models")
    assert response.json() == {
        "models": [
            {"id": "dead", "provider": "custom", "default": True, "available": True, "context_tokens": 16_000},
            {"id": "echo", "provider": "echo", "default": False, "available": True, "context_tokens": 16_000},
        ]
    }
    assert response.headers["cache-control"] == "no-store"
    Description((await offering.get("/openapi.json")).json()).check_response(response)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat", {"message": "Hi"}),
        ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/query", {"prompt": "Hi"}),
    ],
)
async def test_request_may_name_its_model(offering: Client, path: str, body: dict[str, object]) -> None:
    body = {**body, "stream": False}
    answer = (await offering.post(path, json={**body, "model": "echo"})).json()
    assert (answer["model"], answer["answer"]) == ("echo", "Hi")
    assert (await offering.post(path, json=body)).json()["code"] == "upstream_unreachable"
    refused = await offering.post(path, json={**body, "model": "gpt-4o"})
    assert (refused.status_code, refused.json()["code"]) == (422, "model_not_allowed")
    assert "gpt-4o" not in refused.text
    Description((await offering.get("/openapi.json")).json()).check_response(refused)
    assert (await offering.post(path, json={**body, "model": ""})).json()["code"] == "invalid_request"


async def test_query_string_may_name_the_model(offering: Client) -> None:
    for answer in (
        await offering.get("/chat", params={"message": "Hi", "model": "echo", "stream": "false"}),
        await offering.post("/chat?model=echo", json={"message": "Hi", "stream": False}),
    ):
        assert answer.json()["answer"] == "Hi"
    assert (await offering.get("/chat?message=Hi&model=x")).status_code == 422


async def test_retry_goes_to_the_runs_own_model_unless_another_is_named(offering: Client) -> None:
    first = (await offering.post("/chat", json={"message": "Hi", "stream": False, "model": "echo"})).json()
    retry = f"/runs/{first['run_id']}/retry"
    again = (await offering.post(retry, json={"stream": False})).json()
    assert (again["model"], again["answer"]) == ("echo", "Hi")
    assert (await offering.post(retry, json={"stream": False, "model": "dead"})).json()[
        "code"
    ] == "upstream_unreachable"
    assert (await offering.post(retry, json={"model": "x"})).json()["code"] == "model_not_allowed"


async def test_retry_goes_to_the_default_when_the_runs_own_model_is_gone(tmp_path: Path) -> None:
    body = {"message": "Hi", "stream": False}
    async with served(tmp_path, ScriptedModel(["Hello", *ScriptedModel().scripts[0]])) as client:
        first = (await client.post("/chat", json=body)).json()
        assert first["model"] == "scripted"
    async with served_as_set(tmp_path, model_name="echo", stream_delay=0) as client:
        again = (await client.post(f"/runs/{first['run_id']}/retry", json={"stream": False})).json()
        assert (again["model"], again["answer"]) == ("echo", "Hi")


async def test_model_is_part_of_what_an_idempotency_key_stands_for(offering: Client) -> None:
    headers = {"Idempotency-Key": "k"}
    body = {"message": "Hi", "session_id": "s", "stream": False}
    first = await offering.post("/chat", json={**body, "model": "echo"}, headers=headers)
    again = await offering.post("/chat", json={**body, "model": "echo"}, headers=headers)
    assert first.json()["run_id"] == again.json()["run_id"]
    for other in ({}, {"model": "dead"}):
        refused = await offering.post("/chat", json={**body, **other}, headers=headers)
        assert refused.json()["code"] == "idempotency_conflict"


async def test_log_says_which_model_answers_and_why(tmp_path: Path) -> None:
    settings = {"base_url": "http://127.0.0.1:9/v1", "model_name": "dead", "stream_delay": 0}
    async with served_as_set(tmp_path, fallback_models="echo", **settings) as client, asyncio.timeout(10):
        named = await client.post("/chat", json={"message": "Hi", "format": "events"})
        plain = await client.get(f"/runs/{named.headers['x-run-id']}/events")
    frames = [frame for record in named.text.split("\n\n") if (frame := parse_frame(record)) is not None]
    assert [frame.event for frame in frames] == ["run.started", "model.selected", "text.delta", "run.completed"]
    assert frames[1].data == '{"model": "echo", "reason": "fallback", "cause": "upstream_unreachable"}'
    texts = [frame for record in plain.text.split("\n\n") if (frame := parse_frame(record)) is not None]
    assert [(frame.seq, frame.data) for frame in texts] == [(0, None), (1, None), (2, "Hi"), (3, "[DONE]")]


ASKING: list[tuple[str, dict[str, object]]] = [
    ("/chat", {"message": "Hi"}),
    ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
    ("/query", {"prompt": "Hi"}),
    ("/query/stream", {"prompt": "Hi"}),
]


class Renamed(ScriptedModel):
    name = "another"


@pytest.mark.parametrize(("path", "body"), ASKING)
async def test_same_key_leads_to_the_first_answer_whatever_is_allowed_by_now(
    tmp_path: Path, model: ScriptedModel, gate: asyncio.Event, path: str, body: dict[str, object]
) -> None:
    gate.set()
    headers, body = {"Idempotency-Key": "key"}, {**body, "model": "scripted"}
    async with served(tmp_path, model) as client:
        first = await client.post(path, json=body, headers=headers)
        run_id = first.headers["x-run-id"]
        retry = await client.post(
            f"/runs/{run_id}/retry", json={"model": "scripted"}, headers=headers | {"Idempotency-Key": "k2"}
        )
    async with served(tmp_path, Renamed(), max_message_chars=1) as client:
        again = await client.post(path, json=body, headers=headers)
        assert (again.status_code, again.text) == (200, first.text)
        assert again.headers["idempotency-replayed"] == "true"
        retried = await client.post(
            f"/runs/{run_id}/retry", json={"model": "scripted"}, headers={"Idempotency-Key": "k2"}
        )
        assert (retried.text, retried.headers["idempotency-replayed"]) == (retry.text, "true")
        other = await client.post(path, json={**body, "message": "Ho", "prompt": "Ho", "model": "x"}, headers=headers)
        assert other.json()["code"] == "idempotency_conflict"
        late = await client.post(path, json=body, headers={"Idempotency-Key": "new"})
        assert late.json()["code"] in ("model_not_allowed", "invalid_request")


async def test_client_comes_back_to_its_run_whatever_is_allowed_by_now(
    tmp_path: Path, model: ScriptedModel, gate: asyncio.Event
) -> None:
    gate.set()
    body = {"message": "Hi", "model": "scripted"}
    async with served(tmp_path, model) as client:
        run_id = (await client.post("/chat", json=body)).headers["x-run-id"]
    async with served(tmp_path, Renamed(), max_message_chars=1) as client:
        rest = await client.post("/chat", json=body, headers={"Last-Event-ID": f"{run_id}.2"})
        assert rest.text == f"id: {run_id}.2\n\nid: {run_id}.3\ndata: [DONE]\n\n"
