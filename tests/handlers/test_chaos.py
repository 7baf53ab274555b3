"""Faults to order: what is understood, what is refused, and what goes over the wire."""

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chat.errors import ChatError
from chat.runs import Run, RunStatus
from handlers.chaos import Chaos, Fault, Struck, parse_chaos
from handlers.formats.frames import PING, text_frame
from tests.handlers.test_wire import connected
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, served

RUN = Run("run_1", "ses_1", "ann", "msg_1", "msg_2", RunStatus.RUNNING, "echo", 1, 1, 0, created_at=2_000)
FRAMES = [text_frame(RUN.id, seq, f"word{seq} ") for seq in range(1, 6)]


def chaos(*faults: Fault, twice: bool = False, since: int = 1_000) -> Chaos:
    return Chaos(faults, twice, Struck(since))


def chunked(*records: bytes) -> bytes:
    return b"".join([b"%x\r\n%b\r\n" % (len(record), record) for record in records])


# --- what is understood


@pytest.mark.parametrize(
    ("text", "faults", "twice"),
    [
        ("drop@17", [Fault(17, "drop")], False),
        ("kill@40", [Fault(40, "kill")], False),
        ("stall@5:3s", [Fault(5, "stall", 3)], False),
        ("stall@5:1500ms", [Fault(5, "stall", 1.5)], False),
        ("dup", [], True),
        ("drop@1,dup,drop@3", [Fault(1, "drop"), Fault(3, "drop")], True),
    ],
)
def test_orders(text: str, faults: list[Fault], twice: bool) -> None:
    assert parse_chaos(text) == (faults, twice)


@pytest.mark.parametrize(
    "text",
    ["", "drop", "drop@", "drop@0", "drop@-1", "drop@1.5", "drop@1,", "drop@9999999999", "stall@5", "stall@5:3",
     "stall@5:0s", "stall@5:3m", "kill@1:3s", "dup@3", "DROP@3", "drop@1 ", "drop@\u0663"],
)  # fmt: skip
def test_what_is_no_order_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ChatError, match=r"chaos: What can be ordered is drop@17, kill@40, stall@5:3s") as refused:
        parse_chaos(text)
    assert refused.value.code == "invalid_request"


# --- what is refused


async def stored(client: Client) -> list[Any]:
    return list((await client.get("/sessions")).json()["sessions"])


async def test_order_is_refused_where_it_is_not_allowed_and_starts_nothing(
    client: Client, model: ScriptedModel
) -> None:
    for path in ("/chat", "/api/chat", "/query/stream", "/ag-ui", "/health"):
        refused = (await client.post(f"{path}?chaos=kill@1", json={"message": "Hi", "prompt": "Hi"})).json()
        assert (refused["status"], refused["code"]) == (422, "invalid_request")
        assert "Start it with CHAOS=true, for development only." in refused["detail"]
    completion = await client.post("/v1/chat/completions?chaos=dup", json={"messages": []})
    assert (completion.status_code, completion.json()["error"]["code"]) == (400, "invalid_request")
    assert "CHAOS=true" in completion.json()["error"]["message"]
    assert (await stored(client), model.requests) == ([], [])


async def test_order_that_is_not_understood_starts_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, chaos=True, send_timeout=10) as client:
        for wrong, why in (
            ("drop", "What can be ordered is"),
            ("", "What can be ordered is"),
            ("stall@1:10s", "less than SEND_TIMEOUT, 10 s"),
            ("stall@1:5s,stall@2:5s", "less than SEND_TIMEOUT, 10 s"),
            ("dup&chaos=drop@x", "What can be ordered is"),
        ):
            refused = (await client.get(f"/chat?message=Hi&chaos={wrong}")).json()
            assert (refused["code"], refused["errors"][0]["field"]) == ("invalid_request", "chaos")
            assert why in refused["detail"]
        assert await stored(client) == []


async def test_what_somebody_says_is_no_order(client: Client) -> None:
    response = await client.get("/chat", params={"message": "What is ?chaos=drop@1 good for?"})
    assert (response.status_code, response.text.count("\n\n")) == (200, 4)


async def test_service_says_at_its_start_what_it_allows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for host, more in (("127.0.0.1", ""), ("0.0.0.0", " It listens on 0.0.0.0, which others may reach.")):
        async with served(tmp_path, ScriptedModel(["Hi", STOP]), chaos=True, host=host):
            pass
        said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        [warning] = [line["message"] for line in said if line["message"].startswith("CHAOS")]
        assert warning == f"CHAOS is on: whoever reaches this service can end its process, with ?chaos=kill@1.{more}"


# --- on the wire


async def test_drop_ends_behind_its_frame_without_an_end() -> None:
    async with connected(HttpToolsProtocol) as (wire, protocol, socket):
        way = chaos(Fault(3, "drop")).upon(wire, RUN, 0)
        assert way.write(b"".join(FRAMES[:2])) is None
        assert not socket.closed
        blocked = way.write(b"".join(FRAMES[2:]))
        assert blocked is not None  # for ever: what else the stream has to say is said to nobody
        assert (socket.written, socket.closed) == (chunked(*FRAMES[:3]), True)
        waiting = asyncio.ensure_future(blocked)
        await asyncio.sleep(0)
        waiting.cancel()
        protocol.connection_lost(None)


async def test_fault_without_a_frame_of_its_own_waits_for_the_next_one() -> None:
    async with connected(HttpToolsProtocol) as (wire, _, socket):
        way = chaos(Fault(2, "stall", 30)).upon(wire, RUN, 0)
        assert way.write(PING + FRAMES[0] + b"data: half an event\n\n") is None
        assert way.write(FRAMES[3] + FRAMES[4]) is not None
        assert socket.written == chunked(PING, FRAMES[0], b"data: half an event\n\n", FRAMES[3])


async def test_kill_lets_its_frame_through(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    async with connected(HttpToolsProtocol) as (wire, _, socket):
        left = [1, 1, 0]
        monkeypatch.setattr(socket, "get_write_buffer_size", lambda: left.pop(0))
        monkeypatch.setattr(os, "kill", lambda *what: killed.append(what))
        blocked = chaos(Fault(1, "kill")).upon(wire, RUN, 0).write(FRAMES[0] + FRAMES[1])
        assert blocked is not None
        assert (socket.written, killed) == (chunked(FRAMES[0]), [])
        dying = asyncio.ensure_future(blocked)
        async with asyncio.timeout(20):
            while not killed:  # noqa: ASYNC110  # the test's stand-in tells nobody
                await asyncio.sleep(0)
        dying.cancel()
        assert (killed, left) == ([(os.getpid(), signal.SIGKILL)], [])


async def test_stall_waits_and_goes_on_with_the_rest_of_the_batch() -> None:
    async with connected(HttpToolsProtocol) as (wire, _, socket):
        way = chaos(Fault(4, "stall", 0.001), Fault(2, "stall", 0.001)).upon(wire, RUN, 0)
        blocked = way.write(b"".join(FRAMES))
        assert blocked is not None
        assert socket.written == chunked(*FRAMES[:2])
        await soon(blocked)
        assert socket.written == chunked(*FRAMES)
        assert way.write(FRAMES[0]) is None


async def test_slow_reader_is_waited_for_between_frames() -> None:
    async with connected(HttpToolsProtocol) as (wire, protocol, socket):
        way = chaos(twice=True).upon(wire, RUN, 0)
        protocol.pause_writing()
        blocked = way.write(FRAMES[0] + FRAMES[1])
        assert blocked is not None
        assert socket.written == b""
        protocol.resume_writing()
        await soon(blocked)
        assert socket.written == chunked(FRAMES[0] * 2, FRAMES[1] * 2)


async def test_fault_strikes_a_run_once_and_never_behind_its_client() -> None:
    async with connected(HttpToolsProtocol) as (wire, _, _):
        ordered = chaos(Fault(2, "stall", 30))
        assert ordered.upon(wire, RUN, 2).write(FRAMES[1] + FRAMES[2]) is None
        assert ordered.upon(wire, RUN, 0).write(FRAMES[1]) is not None
        assert ordered.upon(wire, RUN, 0).write(FRAMES[1]) is None
        another = replace(RUN, id="run_2")
        assert ordered.upon(wire, another, 0).write(text_frame(another.id, 2, "")) is not None


def test_no_process_is_killed_for_a_run_that_was_there_before_it() -> None:
    for since, kills in ((RUN.created_at, True), (RUN.created_at + 1, False)):
        struck = Struck(since)
        assert struck.due(RUN, Fault(3, "kill")) is kills
        assert struck.due(RUN, Fault(3, "drop"))
