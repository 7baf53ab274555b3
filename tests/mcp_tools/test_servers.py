"""Servers made with the official package, in processes of their own, on both transports and in both protocols."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcp_tools import connection
from mcp_tools.servers import AWAY, BROKEN
from tests.live.service import free_port
from tests.mcp_tools.serving import (
    HttpServer,
    answers,
    called,
    connected,
    lives,
    noted,
    notes,
    offers,
    on_stdio,
    pids,
    until,
)
from tests.patience import soon

TOOLS = ["greet", "measure", "draw", "refuse", "variables", "hold", "die", "learn", "forget"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAUSES", (0.01,))
    monkeypatch.setattr(connection, "REFRESH_PAUSE", 0.01)


@pytest.fixture(params=["2026-07-28", "2025-11-25"])
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param < "2026":
        monkeypatch.setattr(connection, "MODES", ("legacy",))
    return str(request.param)


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[HttpServer]:
    server = HttpServer(tmp_path, free_port())
    yield server
    await server.kill()


@pytest.fixture(params=["stdio", "http"])
async def entry(request: pytest.FixtureRequest, tmp_path: Path, http: HttpServer) -> dict[str, object]:
    """A server, on either transport."""
    if request.param == "stdio":
        return on_stdio(tmp_path)
    await http.start()
    return http.entry


async def test_tools_are_offered_and_called(
    tmp_path: Path, entry: dict[str, object], protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mcp_tools"):
        async with connected(tmp_path, t=entry) as box:
            await until(offers(box, "t__greet"))
            assert [spec.name for spec in box.specs] == [f"t__{name}" for name in TOOLS]
            greet = box.specs[0]
            assert (greet.description, greet.parameters["type"]) == ("Greet somebody.", "object")
            assert greet.parameters["properties"] == {"name": {"default": "you", "title": "Name", "type": "string"}}
            assert (await called(box, "t__greet", '{"name": "Ann"}')).result == "Hello Ann"
            assert (await called(box, "t__greet", "")).result == "Hello you"
            assert (await called(box, "t__measure")).result == '{\n  "width": 3\n}'
            assert (await called(box, "t__draw")).result == "Here it is:\n[image, image/png, 5 bytes, not shown]"
            assert (await called(box, "t__refuse")).error == "Error executing tool refuse: Not today."
            assert "Input should be a valid string" in str((await called(box, "t__greet", '{"name": 5}')).error)
    record = next(record for record in caplog.records if record.message == "an MCP server is connected")
    assert record.__dict__["protocol"] == protocol


async def test_arguments_that_are_no_object_do_not_reach_the_server(tmp_path: Path) -> None:
    async with connected(tmp_path, t=on_stdio(tmp_path)) as box:
        await until(offers(box, "t__greet"))
        for arguments in ('{"name"', '{"name": NaN}', "[" * 100_000, r'{"name": "\ud83d"}'):
            assert str((await called(box, "t__greet", arguments)).error).startswith("The arguments are not JSON")
        assert (await called(box, "t__greet", "[]")).error == "The arguments are not a JSON object."
        assert len(notes(tmp_path)) == 1
        assert (await called(box, "t__greet", '{"name": "\ud83d"}')).result == "Hello ?"


async def test_call_that_is_cancelled_is_cancelled_at_the_server(
    tmp_path: Path, entry: dict[str, object], protocol: str
) -> None:
    async with connected(tmp_path, t=entry) as box:
        await until(offers(box, "t__hold"))
        calling = asyncio.create_task(called(box, "t__hold"))
        await until(noted(tmp_path, "held"))
        calling.cancel()
        await asyncio.wait({calling})
        assert calling.cancelled()
        await until(noted(tmp_path, "let go"))
        assert (await called(box, "t__greet")).result == "Hello you"


async def test_call_that_takes_too_long_is_cancelled_at_the_server(tmp_path: Path) -> None:
    async with connected(tmp_path, t=on_stdio(tmp_path, timeout=1)) as box:
        await until(offers(box, "t__hold"))
        assert (await called(box, "t__hold")).error == "The tool took too long. It may have taken effect."
        await until(noted(tmp_path, "let go"))


async def test_server_that_dies_in_the_middle_of_a_call_comes_back_and_the_call_is_not_repeated(
    tmp_path: Path, entry: dict[str, object], protocol: str, http: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAUSES", (0.5,))
    async with connected(tmp_path, t=entry) as box:
        await until(offers(box, "t__hold"))
        calling = asyncio.create_task(called(box, "t__hold"))
        await until(noted(tmp_path, "held"))
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        assert str((await calling).error).startswith(BROKEN)
        await until(lambda: is_away(box))
        assert "t__greet" in [spec.name for spec in box.specs]
        if http.process is not None:
            await http.process.wait()
            await http.start()
        await until(answers(box, "t__greet"))
        assert notes(tmp_path).count("held") == 1
        assert len(pids(tmp_path)) == 2


async def is_away(box: object) -> bool:
    return (await called(box, "t__greet")).error == AWAY  # type: ignore[arg-type]


async def test_server_that_comes_later_is_found(tmp_path: Path, http: HttpServer) -> None:
    async with connected(tmp_path, t=http.entry) as box:
        await soon(box.settled())
        assert box.specs == []
        await http.start()
        await until(offers(box, "t__greet"))
        assert (await called(box, "t__greet")).result == "Hello you"


async def test_server_that_has_forgotten_the_session_is_greeted_anew(
    tmp_path: Path, http: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MODES", ("legacy",))
    await http.start()
    async with connected(tmp_path, t=http.entry) as box:
        await until(offers(box, "t__forget"))
        assert (await called(box, "t__forget")).result == "Who are you?"
        assert (await called(box, "t__greet")).error == "Session not found"
        await until(answers(box, "t__greet"))
        assert notes(tmp_path).count("greet you") == 1


async def test_tools_that_a_server_learns_are_offered(tmp_path: Path, entry: dict[str, object], protocol: str) -> None:
    async with connected(tmp_path, t=entry) as box:
        await until(offers(box, "t__learn"))
        assert (await called(box, "t__learn")).result == "Now I can sing."
        await until(offers(box, "t__sing"))
        assert (await called(box, "t__sing")).result == "La"


async def test_list_is_asked_for_again_where_nobody_tells_of_changes(
    tmp_path: Path, http: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REFRESH_SECONDS", 0.05)
    await http.start()
    async with connected(tmp_path, t=http.entry) as box:
        await until(offers(box, "t__greet"))
        await http.kill()
        await until(lambda: is_away(box))  # the list showed it: nobody had called


async def test_nothing_of_a_server_stays_behind(tmp_path: Path) -> None:
    async with connected(tmp_path, t=on_stdio(tmp_path)) as box:
        await until(offers(box, "t__hold"))
        calling = asyncio.create_task(called(box, "t__hold"))
        await until(noted(tmp_path, "held"))
        assert lives(pids(tmp_path)[0])
    assert not lives(pids(tmp_path)[0])
    assert str((await soon(calling)).error).startswith(BROKEN)


async def test_server_gets_none_of_our_keys_and_its_stderr_is_for_who_looks_closely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    entry = on_stdio(tmp_path, env={"ITS_OWN": "1"})
    with caplog.at_level(logging.DEBUG, "mcp_tools"):
        async with connected(tmp_path, t=entry) as box:
            await until(offers(box, "t__variables"))
            variables = str((await called(box, "t__variables")).result).split()
    assert "OPENAI_API_KEY" not in variables
    assert "ITS_OWN" in variables
    assert [record.levelno for record in caplog.records if record.__dict__.get("line") == "canary-of-stderr"] == [
        logging.DEBUG
    ]


async def test_what_a_server_prints_when_it_knows_what_people_say_is_only_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "mcp_tools"):
        async with connected(tmp_path, t=on_stdio(tmp_path)) as box:
            await until(offers(box, "t__greet"))
            assert (await called(box, "t__greet", '{"name": "canary"}')).result == "Hello canary"
            await until(lambda: any(record.__dict__.get("lines") for record in caplog.records))
    assert not [record for record in caplog.records if "canary-of-the-call" in repr(record.__dict__)]


async def test_config_says_what_is_offered_and_what_asks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = on_stdio(tmp_path, tools=["greet", "hold", "fly"], approval=["hold", "crawl"])
    async with connected(tmp_path, taken=("t__hold",), t=entry) as box:
        await until(offers(box, "t__greet"))
        assert [spec.name for spec in box.specs] == ["t__greet"]
    [complaint] = [record for record in caplog.records if record.message == "some tools of an MCP server are not there"]
    assert complaint.__dict__["unknown"] == ["crawl", "fly"]
