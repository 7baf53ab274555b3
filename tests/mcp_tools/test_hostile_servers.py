"""Servers that send too much, or what they may not, or nothing at all."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chat.tools import FAILED, Toolbox
from mcp_tools import connection, listing, servers, stdio
from mcp_tools.servers import BROKEN, UNREADABLE
from tests.mcp_tools.serving import called, connected, lives, noted, notes, offers, pids, raw, until
from tests.patience import soon
from tests.upstream import Action, Reply, Upstream


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAUSES", (0.01,))
    monkeypatch.setattr(servers, "SETTLE_SECONDS", 0.1)


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["reason"] for record in caplog.records if "reason" in record.__dict__]


async def test_list_is_bounded_and_each_tool_in_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(tmp_path, t=raw(tmp_path, "odd")) as box:
        await until(offers(box, "t__plain"))
        specs = {spec.name: spec for spec in box.specs}
        assert list(specs) == [
            "t__long", "t__either", "t__a_b_c8687a08", "t__a_b_c14cddc0", "t__e3b0c442", "t__f42ec48e", "t__deep",
            "t__plain",
        ]  # fmt: skip
        assert len(specs["t__long"].description) == 1024
        assert specs["t__either"].parameters == {"type": "object", "properties": {}}
    [complaint] = [record for record in caplog.records if "left_out" in record.__dict__]
    assert complaint.__dict__["left_out"] == 2  # the large one, and the second of the same name


async def test_model_is_told_of_no_more_tools_than_it_takes(tmp_path: Path) -> None:
    async with connected(
        tmp_path, taken=("a", "b"), t=raw(tmp_path, "many"), u=raw(tmp_path, "plain", approval=True)
    ) as box:
        await until(lambda: len(box.specs) == listing.MOST_TOOLS - 2)
        assert {spec.name.partition("__")[0] for spec in box.specs} == {"t"}


async def test_list_without_an_end_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_KEPT", 3_000_000)
    async with connected(tmp_path, t=raw(tmp_path, "endless")) as box:
        await until(lambda: "MemoryError" in reasons(caplog))
        assert box.specs == []


async def test_list_in_many_pages_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_PAGES", 3)
    async with connected(tmp_path, t=raw(tmp_path, "endless")) as box:
        await until(offers(box, "t__tool_2"))
        assert len(box.specs) == 3


async def test_list_that_cannot_be_had_again_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REFRESH_SECONDS", 0.01)
    async with connected(tmp_path, t=raw(tmp_path, "moody")) as box:
        await until(lambda: "error -32603" in reasons(caplog))
        assert [spec.name for spec in box.specs] == ["t__run"]
    assert len(pids(tmp_path)) == 1


async def test_connection_that_has_lasted_is_made_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STEADY_SECONDS", 0)
    monkeypatch.setattr(connection, "PAUSES", (0.01, 1000.0))
    async with connected(tmp_path, t=raw(tmp_path, "mortal")) as box:
        await until(offers(box, "t__run"))
        for deaths in range(1, 4):
            await until(lambda: broke(box))
            await until(lambda deaths=deaths: len(pids(tmp_path)) == deaths + 1)  # type: ignore[misc]


async def broke(box: Toolbox) -> bool:
    return (await called(box, "t__run")).error == f"{BROKEN} (Connection closed)"


@pytest.mark.parametrize("kind", ["shapeless", "invalid"])
async def test_list_that_the_protocol_does_not_allow_is_refused(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(tmp_path, t=raw(tmp_path, kind)) as box:
        await until(lambda: "an answer that the protocol does not allow" in reasons(caplog))
        assert box.specs == []


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("deaf", f"{BROKEN} (Connection closed)"),
        ("endless_line", f"{BROKEN} (Connection closed)"),
        ("garbage", UNREADABLE),
        ("wordy", f"{BROKEN} (I have a word to say)"),
        ("empty", FAILED),
        ("asks_back", servers.ASKS_BACK),
    ],
)
async def test_answer_that_is_none_becomes_an_error(tmp_path: Path, kind: str, error: str) -> None:
    async with connected(tmp_path, t=raw(tmp_path, kind)) as box:
        await until(offers(box, "t__run"))
        assert (await called(box, "t__run")).error == error
        assert notes(tmp_path).count("called") == (0 if kind == "deaf" else 1)


async def test_what_is_no_message_is_passed_over(tmp_path: Path) -> None:
    async with connected(tmp_path, t=raw(tmp_path, "noisy")) as box:
        await until(offers(box, "t__run"))
        assert (await called(box, "t__run")).result == "Hi"


async def test_server_that_says_nothing_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 1.0)
    async with connected(tmp_path, t=raw(tmp_path, "silent")) as box:
        await soon(box.settled())
        assert box.specs == []
        await until(lambda: "no answer in time" in reasons(caplog))
        await until(lambda: len(pids(tmp_path)) > 1)
        assert not lives(pids(tmp_path)[0])


async def test_server_that_expects_the_older_greeting_gets_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(tmp_path, t=raw(tmp_path, "strict")) as box:
        await until(offers(box, "t__run"))
    assert reasons(caplog) == ["error -32000"]


async def test_command_that_is_not_there_is_named_in_the_log_by_its_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(tmp_path, t={"command": "/nowhere/canary"}) as box:
        await until(lambda: reasons(caplog) != [])
        await soon(box.settled())
    assert set(reasons(caplog)) == {"No such file or directory"}
    assert "canary" not in caplog.text


async def test_server_that_does_not_want_to_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "EXIT_SECONDS", 0.1)
    async with connected(tmp_path, t=raw(tmp_path, "stubborn")) as box:
        await until(offers(box, "t__run"))
    assert not lives(pids(tmp_path)[0])


async def test_child_of_a_server_is_ended_with_it(tmp_path: Path) -> None:
    async with connected(tmp_path, t=raw(tmp_path, "parent")) as box:
        await until(offers(box, "t__run"))
        assert lives(pids(tmp_path)[1])
    await until(lambda: not running(pids(tmp_path)[1]))


def running(pid: int) -> bool:
    """Whether it does anything: who was its parent has to reap it, which takes a moment or for ever in a container."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_shutdown_in_the_middle_of_a_slow_end_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has not answered in time and is being ended when the process is told to stop."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(stdio, "EXIT_SECONDS", 1.0)
    ending = asyncio.Event()
    end = stdio._end

    async def watched(*arguments: object) -> None:
        ending.set()
        await end(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stdio, "_end", watched)
    async with connected(tmp_path, t=raw(tmp_path, "stubborn_and_silent")):
        await until(noted(tmp_path, "listed"))
        await soon(ending.wait())
    assert not lives(pids(tmp_path)[0])


# --- by HTTP


def json_reply(body: object, status: int = 200, **headers: str) -> Reply:
    actions: tuple[Action, ...] = (json.dumps(body).encode(),)
    return Reply(status, {"Content-Type": "application/json", **headers}, actions)


def result(number: int, body: object) -> Reply:
    return json_reply({"jsonrpc": "2.0", "id": number, "result": body})


GREETING = (
    json_reply({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no such method"}}),
    result(
        2,
        {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "raw", "version": "1"},
        },
    ),
    json_reply(None, 202),
    result(3, {"tools": [{"name": "run", "inputSchema": {"type": "object"}}]}),
)


@asynccontextmanager
async def reached(folder: Path, *replies: Reply) -> AsyncIterator[tuple[Upstream, Toolbox]]:
    async with Upstream(*replies) as upstream:
        entry = {"url": f"{upstream.url}/mcp", "headers": {"Authorization": "Bearer canary-of-the-token"}}
        async with connected(folder, t=entry) as box:
            yield upstream, box


async def test_headers_of_the_config_are_sent(tmp_path: Path) -> None:
    text = {"content": [{"type": "text", "text": "Hi"}]}
    async with reached(tmp_path, *GREETING, result(4, text)) as (upstream, box):
        await until(offers(box, "t__run"))
        assert (await called(box, "t__run")).result == "Hi"
        request = await upstream.request(4)
        assert request.headers["authorization"] == "Bearer canary-of-the-token"
        assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (
            result(4, {"content": [], "padding": "x" * 5_000_000}),
            "Failed to parse JSON response: longer than a message",
        ),
        (json_reply({}, 502), "Server returned an error response"),
        (json_reply({}, 200, **{"Content-Encoding": "gzip"}), BROKEN),
        (Reply(200, {}, (b"data: " + b"x" * 5_000_000 + b"\n\n",)), f"{BROKEN} (SSE stream failed"),
        (Reply(200, {}, ()), f"{BROKEN} (SSE stream ended without a response)"),
    ],
)
async def test_answer_by_http_that_is_none_becomes_an_error(tmp_path: Path, reply: Reply, error: str) -> None:
    async with reached(tmp_path, *GREETING, reply) as (_, box):
        await until(offers(box, "t__run"))
        assert str((await called(box, "t__run")).error).startswith(error)


async def test_server_that_refuses_is_logged_with_its_status_and_nothing_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "mcp_tools"):
        async with reached(tmp_path, json_reply({"error": "canary-of-the-body"}, 401)) as (_, box):
            await until(lambda: reasons(caplog) != [])
            assert box.specs == []
    assert reasons(caplog)[0] == "error -32603, HTTP 401"
    ours = [record.getMessage() + str(record.__dict__) for record in caplog.records if record.name.startswith("mcp_t")]
    assert "canary" not in "".join(ours)
