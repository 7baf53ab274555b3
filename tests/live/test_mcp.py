"""MCP servers of a real service: what the model is offered, and what becomes of calls and processes."""

import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.live.conftest import Serve
from tests.live.service import Frame, Service, free_port
from tests.mcp_tools.serving import HttpServer, lives, noted, notes, on_stdio, pids, raw, until
from tests.upstream import Reply, Upstream, calling, completion

GREET = calling("call_1", "t__greet", {"name": "Ann"})
HOLD = calling("call_1", "t__hold", {})
DONE = completion("Done.")


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[HttpServer]:
    server = HttpServer(tmp_path, free_port())
    yield server
    await server.kill()


@asynccontextmanager
async def talking(
    serve: Serve, folder: Path, entries: dict[str, object], *replies: Reply, **settings: str
) -> AsyncIterator[tuple[Service, Upstream]]:
    """A service with these MCP servers, whose model gives these replies; its log is JSON to the end."""
    file = folder / "mcp.json"
    file.write_text(json.dumps({"mcpServers": entries}))
    async with Upstream(*replies) as upstream:
        service = await serve(
            BASE_URL=upstream.base_url, MODEL_NAME="gpt-test", MCP_SERVERS=str(file), DRAIN_SECONDS="0", **settings
        )
        yield service, upstream
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
        assert [line for line in lines if "exc_info" in line] == []
        assert "canary-of-stderr" not in service.log.read_text()


def says(service: Service, message: str, **about: object) -> Callable[[], bool]:
    """Whether the log has such a line."""

    def said() -> bool:
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
        return any(line["message"] == message and about.items() <= line.items() for line in lines)

    return said


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_answer_has_what_a_server_said_and_the_history_shows_it(
    serve: Serve, tmp_path: Path, http: HttpServer, transport: str
) -> None:
    entry = on_stdio(tmp_path) if transport == "stdio" else http.entry
    await http.start()
    async with talking(serve, tmp_path, {"t": entry}, GREET, completion("It said hello.")) as (service, upstream):
        await until(says(service, "an MCP server is connected", server="t", tools=9))
        run_id = await service.begin("Greet Ann", session_id="one")
        frames = await service.follow(run_id, format="events")
        assert [frame.event for frame in frames][-3:] == ["tool.finished", "text.delta", "run.completed"]
        asked = [(await upstream.request(number)).body for number in range(2)]
        names = [tool["function"]["name"] for tool in asked[0]["tools"]]
        assert names[:3] == ["t__greet", "t__measure", "t__draw"]
        assert asked[1]["messages"][-1] == {"role": "tool", "tool_call_id": "call_1", "content": "Hello Ann"}
        messages = (await service.client.get("/sessions/one/messages")).json()["messages"]
        assert "Hello Ann" in json.dumps(messages[-1])
        assert messages[-1]["content"] == "It said hello."


async def test_runs_of_the_first_moment_wait_for_the_servers(serve: Serve, tmp_path: Path) -> None:
    async with talking(serve, tmp_path, {"t": raw(tmp_path, "polite")}, DONE) as (service, upstream):
        await service.ended(await service.begin("Hi"))
        assert [tool["function"]["name"] for tool in (await upstream.request(0)).body["tools"]] == ["t__run"]


async def test_servers_that_are_dead_or_silent_hold_up_no_start(serve: Serve, tmp_path: Path) -> None:
    entries: dict[str, object] = {
        "silent": raw(tmp_path, "silent"),
        "dead": {"command": "/nowhere/server"},
        "away": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
    }
    async with talking(serve, tmp_path, entries, DONE) as (service, upstream):
        assert not says(service, "an MCP server is connected")()
        await until(says(service, "an MCP server is away", server="dead", reason="No such file or directory"))
        assert (await service.client.get("/ready")).status_code == 200
        assert (await service.ended(await service.begin("Hi")))["status"] == "completed"
        assert "tools" not in (await upstream.request(0)).body


async def test_call_waits_for_a_yes_also_over_a_restart(serve: Serve, tmp_path: Path) -> None:
    entries: dict[str, object] = {"t": raw(tmp_path, "polite", approval=["run"])}
    async with talking(serve, tmp_path, entries, calling("call_1", "t__run", {}), DONE) as (service, upstream):
        run_id = await service.begin("Run")
        async with service.stream("GET", f"/runs/{run_id}/events", params={"format": "events"}) as stream:
            assert "tool.approval" in [frame.event async for frame in upto(stream, "tool.approval")]
        await service.restart()
        response = await service.client.post(f"/runs/{run_id}/approvals/call_1", json={"approved": True})
        assert response.status_code == 200
        assert (await service.ended(run_id))["status"] == "completed"
        assert (await upstream.request(1)).body["messages"][-1]["content"] == "Hi"
        assert notes(tmp_path).count("called") == 1


async def upto(stream: AsyncIterator[Frame], event: str) -> AsyncIterator[Frame]:
    async for frame in stream:
        yield frame
        if frame.event == event:
            return


async def test_cancelled_run_cancels_its_call_at_the_server(serve: Serve, tmp_path: Path) -> None:
    async with talking(serve, tmp_path, {"t": on_stdio(tmp_path)}, HOLD) as (service, _):
        await until(says(service, "an MCP server is connected", server="t"))
        run_id = await service.begin("Hold")
        await until(noted(tmp_path, "held"))
        cancelled = (await service.client.post(f"/runs/{run_id}/cancel")).json()
        assert cancelled["status"] == "cancelled"
        await until(noted(tmp_path, "let go"))


async def test_server_killed_in_the_middle_of_a_call_is_reported_and_comes_back(serve: Serve, tmp_path: Path) -> None:
    async with talking(serve, tmp_path, {"t": on_stdio(tmp_path)}, HOLD, DONE, GREET, DONE) as (service, upstream):
        await until(says(service, "an MCP server is connected", server="t"))
        run_id = await service.begin("Hold")
        await until(noted(tmp_path, "held"))
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        assert (await service.ended(run_id))["status"] == "completed"
        told = (await upstream.request(1)).body["messages"][-1]["content"]
        assert told.startswith("Error: The connection to the server broke. The call may have taken effect.")
        await until(lambda: len(pids(tmp_path)) == 2)
        await until(lambda: service.log.read_text().count("an MCP server is connected") == 2)
        await service.ended(await service.begin("Greet Ann"))
        assert (await upstream.request(3)).body["messages"][-1]["content"] == "Hello Ann"
        assert notes(tmp_path).count("held") == 1


@pytest.mark.parametrize("end", ["terminate", "kill"])
async def test_no_server_outlives_the_service(serve: Serve, tmp_path: Path, end: str) -> None:
    async with talking(serve, tmp_path, {"t": on_stdio(tmp_path)}, HOLD, WORKERS="2") as (service, _):
        await until(lambda: service.log.read_text().count("an MCP server is connected") == 2)
        started = pids(tmp_path)  # each worker has one of its own
        assert [lives(pid) for pid in started] == [True, True]
        await service.begin("Hold")
        await until(noted(tmp_path, "held"))
        stop: Callable[[], Awaitable[object]] = getattr(service, end)
        await stop()
        if end == "terminate":
            assert [lives(pid) for pid in started] == [False, False]
        for pid in started:  # whose stdin is closed, ends
            await until(lambda pid=pid: not lives(pid))  # type: ignore[misc]
