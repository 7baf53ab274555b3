"""Clients that stay while nothing comes, and clients that go away before their answer is complete."""

import asyncio
import inspect
import json
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, cast

import pytest

from chat.echo import EchoModel
from chat.events import RunCancelled
from chat.runs import RunStatus
from tests.patience import soon
from tests.scripted import ScriptedModel, uncounted
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


async def test_stream_waits_outside_of_the_middlewares_and_is_logged_at_its_end(
    client: Client, gate: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    def accesses() -> list[dict[str, Any]]:
        return [vars(record) for record in caplog.records if record.name == "parley.access"]

    gate.clear()
    exchange = Exchange(client.app, {"message": "Hi"})
    await exchange.until(b"data: Hello \n\n")
    waiting = waiting_in(exchange.done)
    assert waiting[-1] == "Follower._visible"
    assert not [name for name in waiting if "iddleware" in name or "Rout" in name]
    assert not accesses()
    gate.set()
    await soon(exchange.done)
    [line] = accesses()
    assert (line["message"], line["status"], line["path"]) == ("request", 200, "/chat")
    assert f"id: {line['run_id']}.0".encode() in exchange.sent


def waiting_in(task: "asyncio.Task[None]") -> list[str]:
    """The coroutines that wait for one another, the outermost first."""
    names, work = [], cast("object", task.get_coro())
    while inspect.iscoroutine(work):
        names.append(work.__qualname__)
        work = work.cr_await
    return names


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
    ended = await soon(client.app.state.engine.result(run_id))
    assert uncounted(ended.terminal) == RunCancelled("client_disconnected")
    assert model.requests[0].closed.is_set()


@whole_or_not
async def test_run_that_has_ended_when_its_client_goes_is_complete(client: Client, *, stream: bool) -> None:
    response = await client.post("/chat", json={"message": "Hi", "stream": stream, "on_disconnect": "cancel"})
    run = await client.get(f"/runs/{response.headers['x-run-id']}")
    assert run.json()["status"] == "completed"


async def test_cancel_that_fails_when_the_client_goes_is_logged(
    client: Client, gate: asyncio.Event, model: ScriptedModel, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_run_id: str, _reason: str) -> None:
        raise RuntimeError("no cancel today")

    gate.clear()
    client.app.state.engine.cancel = broken
    _, exchange = await left(client, model, on_disconnect="cancel")
    await soon(exchange.done)
    assert "no cancel today" in caplog.text
    gate.set()


class StalledExchange(Exchange):
    """Its client reads up to ``last``, which may be the kind of a message, and nothing more."""

    def __init__(self, client: Client, last: bytes | str, **body: object) -> None:
        self._last = last
        super().__init__(client.app, {"message": "Hi", **body})

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await super()._send(message)
        if isinstance(self._last, bytes):
            stalls = self._last in message.get("body", b"")
        else:
            stalls = self._last == ("end" if message.get("more_body") is False else message["type"])
        if stalls:
            await asyncio.Event().wait()


@pytest.mark.parametrize("last", [b"id: run_", b"data: Hello"], ids=["first frame", "word"])
async def test_reader_that_stalls_is_dropped_and_the_run_goes_on(
    tmp_path: Path, model: ScriptedModel, capsys: pytest.CaptureFixture[str], last: bytes
) -> None:
    async with served(tmp_path, model, send_timeout=0.02) as client:
        exchange = StalledExchange(client, last)
        await soon(exchange.done)
        [run_id] = re.findall(rb"id: (run_[^.]+)\.0", exchange.sent)
        assert (await soon(client.app.state.engine.result(run_id.decode()))).status is RunStatus.COMPLETED
    assert "a reader that stalled was dropped" in capsys.readouterr().err


@pytest.mark.parametrize("last", ["http.response.start", b"data: Hello"], ids=["head", "word"])
async def test_run_ends_with_a_reader_that_stalls_if_that_is_wanted(
    tmp_path: Path, gate: asyncio.Event, model: ScriptedModel, last: bytes | str
) -> None:
    gate.clear()
    async with served(tmp_path, model, send_timeout=0.02) as client:
        exchange = StalledExchange(client, last, session_id="one", on_disconnect="cancel")
        await soon(exchange.done)
        messages = (await client.get("/sessions/one/messages")).json()["messages"]
    assert (messages[-1]["role"], messages[-1]["status"]) == ("assistant", "cancelled")


@pytest.mark.parametrize("last", ["http.response.start", "end"])
async def test_reader_that_stalls_at_the_head_or_the_end_is_dropped(
    tmp_path: Path, model: ScriptedModel, capsys: pytest.CaptureFixture[str], last: str
) -> None:
    async with served(tmp_path, model, send_timeout=0.02) as client:
        exchange = StalledExchange(client, last)
        await soon(exchange.done)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "parley.access" in line]
    assert [line["message"] for line in lines] == ["a reader that stalled was dropped", "request"]
    assert (b"data: " in exchange.sent) == (last == "end")


class SlowExchange(Exchange):
    """Its client stops reading at every frame, in the middle of the send, and goes on in a moment."""

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        await super()._send(message)


async def test_slow_reader_gets_everything_once_and_in_order(tmp_path: Path) -> None:
    words = " ".join(f"{number}" for number in range(60))
    async with served(tmp_path, EchoModel(0.002), ping_seconds=0.004) as client:
        exchange = SlowExchange(client.app, {"message": words})
        await soon(exchange.done)
    *texts, done = re.findall(r"^data: (.*)$", exchange.sent.decode(), re.MULTILINE)
    assert len(texts) > 9  # more than one page
    assert "".join(texts).endswith(words)
    assert done == "[DONE]"


class BrokenExchange(Exchange):
    """Its connection breaks in the middle of a word, with an error that no server should raise."""

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if b"data: there" in message.get("body", b""):
            raise OSError("a broken wire")
        await super()._send(message)


async def test_send_that_fails_ends_the_stream_and_not_the_run(
    client: Client, gate: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    gate.clear()
    exchange = BrokenExchange(client.app, {"message": "Hi"})
    await exchange.until(b"data: Hello")
    gate.set()
    await soon(exchange.done)
    assert "a broken wire" in caplog.text
    [run_id] = re.findall(rb"id: (run_[^.]+)\.0", exchange.sent)
    assert (await soon(client.app.state.engine.result(run_id.decode()))).status is RunStatus.COMPLETED


async def test_stop_of_the_server_reaches_a_reader_that_stalls(client: Client) -> None:
    exchange = StalledExchange(client, b"data: Hello")
    await exchange.until(b"data: Hello")
    exchange.done.cancel()
    await asyncio.wait({exchange.done})
    assert exchange.done.cancelled()
