import asyncio
import json
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from openai.types.responses import Response

from chat.events import ToolDelta, ToolStarted
from chat.ports import Finished
from tests.patience import PATIENCE, soon
from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, served, served_as_set

CALL = ToolStarted("1", "look"), ToolDelta("1", "{}"), Finished("tool_calls")
LOOK = {"type": "function", "name": "look", "parameters": None}


async def test_response_outlives_its_events(tmp_path: Path) -> None:
    async with served(tmp_path, ScriptedModel(["I ", "look. ", *CALL])) as client:
        asked = {"input": "Hi", "tools": [LOOK]}
        response = (await client.post("/v1/responses", json=asked)).json()
        path = f"/v1/responses/{response['id']}"
        whole = (await client.get(path, params={"stream": "true"})).text
        await client.app.state.engine.store.sweep(0)
        assert (await client.get(path)).json() == response
        again = await client.get(path, params={"stream": "true"})
        assert again.headers["content-type"].startswith("text/event-stream")
        assert again.headers["cache-control"] == "no-store"
        *told, end = events(again.text)
        assert [event["delta"] for event in told if event["type"] == "response.output_text.delta"] == ["I look. "]
        assert end["response"] == events(whole)[-1]["response"]
        for more, headers in (({"starting_after": "1"}, {}), ({}, {"Last-Event-ID": f"run_{response['id'][5:]}.1"})):
            gone = await client.get(path, params={"stream": "true", **more}, headers=headers)
            assert (gone.status_code, gone.json()["error"]["code"]) == (410, "cursor_expired")


def events(stream: str) -> list[Any]:
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]


async def test_results_that_come_once_more_are_the_same_request(tmp_path: Path) -> None:
    async with served(tmp_path, ScriptedModel(CALL, ["Sun.", STOP])) as client:
        await client.post("/v1/responses", json={"input": "Hi", "tools": [LOOK], "conversation": "c"})
        output = {"type": "function_call_output", "call_id": "1", "output": "Sun"}
        asked: Any = {"json": {"input": [output], "conversation": "c"}, "headers": {"Idempotency-Key": "key"}}
        first, again = [await client.post("/v1/responses", **asked) for _ in range(2)]
        assert first.json()["output"][0]["content"][0]["text"] == "Sun."
        assert again.json() == first.json()
        assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("stream", [False, True])
async def test_same_request_is_answered_whatever_has_changed_since(tmp_path: Path, stream: bool) -> None:
    asked: Any = {
        "json": {"input": "Hi there", "model": "echo", "stream": stream},
        "headers": {"Idempotency-Key": "key"},
    }
    async with served_as_set(tmp_path, model_name="echo", stream_delay=0) as client:
        before = (await client.post("/v1/responses", json={"input": "So?"})).json()
        asked["json"]["previous_response_id"] = before["id"]
        first = await client.post("/v1/responses", **asked)
    settings = {"base_url": "http://127.0.0.1:9/v1", "model_name": "another", "max_message_chars": 3}
    async with served_as_set(tmp_path, **settings) as client:
        again = await client.post("/v1/responses", **asked)
        assert (again.text, again.headers["idempotency-replayed"]) == (first.text, "true")
        assert "Hi there" in again.text
        other = await client.post("/v1/responses", json=asked["json"] | {"input": "Ho"}, headers=asked["headers"])
        assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_conflict")


async def test_response_in_a_session_that_waits_says_so(client: Client, gate: asyncio.Event) -> None:
    gate.clear()
    first, second = [
        (await client.post("/v1/responses", json={"input": "Hi", "conversation": "c", **more})).json()
        for more in ({"background": True}, {"background": True, "on_busy": "queue"})
    ]
    assert (first["status"], second["status"]) == ("in_progress", "queued")
    stopped = (await client.post(f"/v1/responses/{second['id']}/cancel")).json()
    assert (stopped["status"], stopped["output"], stopped["usage"]) == ("cancelled", [], None)
    gate.set()


async def test_response_gives_back_what_was_asked(tmp_path: Path) -> None:
    asked = {
        "input": "Hi",
        "instructions": "Be kind",
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "temperature": 0.5,
        "text": {"format": {"type": "json_schema", "name": "sky", "schema": {"type": "object"}}, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "look"},
        "tools": [{"type": "function", "name": "look", "description": "", "parameters": {"a": {}}, "strict": True}],
        "top_p": 1.0,
    }
    model = ScriptedModel()
    async with served(tmp_path, model) as client:
        response = (await client.post("/v1/responses", json=asked)).json()
        Response.model_validate(response)
        assert {"input": "Hi"} | {name: response[name] for name in asked if name != "input"} == asked
        assert model.requests[0].request.tools[0].strict


async def test_what_another_process_has_shown_is_known_at_once(
    tmp_path: Path, client: Client, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.clear()
    run = (await client.post("/v1/responses", json={"input": "Hi", "background": True})).json()
    path, stream = f"/v1/responses/{run['id']}", {"stream": "true"}
    async with asyncio.timeout(PATIENCE):
        while not (await client.get(path)).json()["output"]:  # so that the other process finds something to look at
            pass
    async with served(tmp_path) as other:
        live = other.app.state.engine._live

        async def asked(before: int, **more: str) -> asyncio.Task[httpx.Response]:
            """Ask the other process, which looks at the run and then follows it, beside so many others."""
            asking = asyncio.create_task(other.get(path, params=stream | more))
            for count in (before + 1, before, before + 1):
                async with asyncio.timeout(PATIENCE):
                    while sum(one.followers for one in live._runs.values()) != count:
                        assert not asking.done()
                        await asyncio.sleep(0)
            return asking

        first = await asked(0)
        with monkeypatch.context() as patch:
            patch.setattr(live, "tail", AsyncMock(return_value=False))  # it lags behind
            gate.set()
            whole = events((await client.get(path, params=stream)).text)
            second = await asked(1, starting_after=str(len(whole) - 2))
            assert (await other.get(path)).json() == (await client.get(path)).json()
        assert events((await soon(first)).text) == whole
        assert events((await soon(second)).text) == whole[-1:]


@pytest.mark.parametrize("depth", [100, 900, 951, 2_000])
async def test_schema_that_could_not_be_told_back_is_refused(tmp_path: Path, depth: int) -> None:
    """951 levels could be read, and not be written into the response's ``text``."""
    schema = '{"a":' * depth + "1" + "}" * depth
    body = f'{{"input": "Hi", "text": {{"format": {{"type": "json_schema", "name": "n", "schema": {schema}}}}}}}'
    async with served(tmp_path) as client:
        response = await client.post("/v1/responses", content=body, headers={"Content-Type": "application/json"})
    if depth == 100:
        assert response.json()["text"]["format"]["schema"] == json.loads(schema)
    else:
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
