"""Clients that stay while nothing comes, and clients that go away before their answer is complete."""

import asyncio
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from chat.events import RunCancelled
from chat.runs import RunStatus
from tests.scripted import ScriptedModel, soon
from tests.serving import Client, Exchange, served

whole_or_not = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


async def left(client: Client, model: ScriptedModel, **body: object) -> tuple[str, Exchange]:
    """Ask, and go away when the model has been asked: the run's id, and what became of the request."""
    exchange = Exchange(client.app, {"message": "Hi", **body})
    await model.asked(0)
    [run] = [live.run for live in client.app.state.engine._live._runs.values()]
    exchange.leave()
    return run.id, exchange


async def test_stream_is_kept_open_while_the_model_thinks(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with served(tmp_path, ScriptedModel([gate, "Hi"]), ping_seconds=0.001) as client:
        exchange = Exchange(client.app, {"message": "Hi"})
        await exchange.until(b": ping\n\n: ping\n\n")
        assert exchange.sent.startswith(b"id: run_")  # the cursor first, so that a reconnect resumes
        gate.set()
        await soon(exchange.done)
        assert b"data: Hi\n\n" in exchange.sent


async def test_words_are_sent_as_they_come(client: Client, gate: asyncio.Event) -> None:
    gate.clear()
    exchange = Exchange(client.app, {"message": "Hi"})
    await exchange.until(b"data: Hello \n\n")
    assert b"there" not in exchange.sent
    gate.set()
    await exchange.until(b"data: there\n\n")
    await soon(exchange.done)


@whole_or_not
async def test_run_survives_its_client(
    client: Client, gate: asyncio.Event, model: ScriptedModel, *, stream: bool
) -> None:
    gate.clear()
    run_id, exchange = await left(client, model, stream=stream)
    if stream:
        await soon(exchange.done)
    gate.set()
    await soon(exchange.done)
    assert (await soon(client.app.state.engine.result(run_id))).status is RunStatus.COMPLETED


@whole_or_not
async def test_run_ends_with_its_client_if_that_is_wanted(
    client: Client, gate: asyncio.Event, model: ScriptedModel, *, stream: bool
) -> None:
    gate.clear()
    run_id, exchange = await left(client, model, stream=stream, on_disconnect="cancel")
    await soon(exchange.done)
    assert (await soon(client.app.state.engine.result(run_id))).terminal == RunCancelled("client_disconnected")
    assert model.requests[0].closed.is_set()


@whole_or_not
async def test_run_that_has_ended_when_its_client_goes_is_complete(client: Client, *, stream: bool) -> None:
    response = await client.post("/chat", json={"message": "Hi", "stream": stream, "on_disconnect": "cancel"})
    run = await client.get(f"/runs/{response.headers['x-run-id']}")
    assert run.json()["status"] == "completed"


class StalledExchange(Exchange):
    """Its client reads the first word and nothing more."""

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await super()._send(message)
        if b"data: Hello" in message.get("body", b""):
            await asyncio.Event().wait()


async def test_reader_that_stalls_is_dropped_and_the_run_goes_on(
    tmp_path: Path, model: ScriptedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path, model, send_timeout=0.02) as client:
        exchange = StalledExchange(client.app, {"message": "Hi"})
        await soon(exchange.done)
        [run_id] = re.findall(rb"id: (run_[^.]+)\.0", exchange.sent)
        assert (await soon(client.app.state.engine.result(run_id.decode()))).status is RunStatus.COMPLETED
    assert "a reader that stalled was dropped" in capsys.readouterr().err


async def test_stop_of_the_server_reaches_a_reader_that_stalls(client: Client) -> None:
    exchange = StalledExchange(client.app, {"message": "Hi"})
    await exchange.until(b"data: Hello")
    exchange.done.cancel()
    await asyncio.wait({exchange.done})
    assert exchange.done.cancelled()
