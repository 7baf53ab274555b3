import asyncio
import json
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import FrameType

import pytest
import uvicorn

import server
from store import sqlite_database
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, logging_left_alone, served, settings_in
from tests.store.files import locked

HANDLED = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def stops() -> Iterator[list[int]]:
    """The signals that come through to who handled them before."""
    stops: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stops.append(number)

    before = {number: signal.signal(number, stop) for number in HANDLED}
    yield stops
    for number, handler in before.items():
        signal.signal(number, handler)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Looks again and again: neither a signal's handler nor a client can set an event of the loop."""
    async with asyncio.timeout(10):
        while not (await met if isinstance(met := condition(), Awaitable) else met):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def ready(client: Client, status: int) -> Callable[[], Awaitable[bool]]:
    async def answers() -> bool:
        return (await client.get("/ready")).status_code == status

    return answers


# --- the database


async def test_service_waits_for_its_database_and_lives_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sqlite_database, "BUSY_TIMEOUT_MS", 0)
    monkeypatch.setattr(server, "OPEN_WAIT", 0.01)
    monkeypatch.setattr(server, "OPEN_PAUSE", 0.01)
    with ExitStack() as lock:
        lock.enter_context(locked(tmp_path / "chat.db", "EXCLUSIVE"))
        async with served(tmp_path, ScriptedModel(["Hi", STOP])) as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == 503
            response = await client.post("/chat", json={"message": "Hi"})
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            await until(lambda: "The database cannot be opened; trying again." in capsys.readouterr().err)
            lock.close()
            await until(ready(client, 200))
            assert (await client.post("/query", json={"prompt": "Hi"})).json()["answer"] == "Hi"


async def test_service_with_the_database_of_a_later_version_says_so_and_leaves_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path):
        pass
    file = tmp_path / "chat.db"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version=999")
    content = file.read_bytes()
    async with served(tmp_path) as client:
        for path in ("/ready", "/sessions"):
            response = await client.get(path)
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert (await client.get("/health")).status_code == 200
    assert "The database belongs to a later version of this service." in capsys.readouterr().err
    assert file.read_bytes() == content


async def test_service_with_a_damaged_database_says_so_and_leaves_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, content = tmp_path / "chat.db", b"This is no database. " * 500
    file.write_bytes(content)
    async with served(tmp_path) as client:
        response = await client.get("/ready")
        assert (response.status_code, response.json()["code"]) == (503, "store_corrupt")
        assert (await client.get("/health")).status_code == 200
    assert file.read_bytes() == content
    levels = [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()]
    assert "CRITICAL" in levels
    assert "ERROR" not in levels  # such as of a shutdown that failed


async def test_service_that_never_had_its_database_stops_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OPEN_WAIT", 0.01)
    async with asyncio.timeout(10):
        async with served(tmp_path, database_url=f"sqlite:///{tmp_path}/nowhere/chat.db") as client:
            assert (await client.get("/ready")).status_code == 503


# --- the model


async def test_model_is_closed_with_the_service(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with served(tmp_path, model):
        assert not model.closed
    assert model.closed


# --- signals


@pytest.mark.parametrize("number", HANDLED)
async def test_signal_drains_the_service_before_it_stops_the_server(
    tmp_path: Path, stops: list[int], number: signal.Signals
) -> None:
    gate = asyncio.Event()
    model = ScriptedModel(["Hi ", gate, "there", STOP])
    async with served(tmp_path, model) as client:
        asking = asyncio.create_task(client.post("/query", json={"prompt": "Hi"}))
        await model.asked(0)
        signal.raise_signal(number)
        await until(ready(client, 503))
        assert stops == []
        gate.set()
        assert (await soon(asking)).json()["answer"] == "Hi there"
        await until(lambda: bool(stops))
        assert stops == [number]


async def test_second_signal_stops_the_server_at_once(tmp_path: Path, stops: list[int]) -> None:
    model = ScriptedModel([asyncio.Event()])
    async with served(tmp_path, model) as client:
        asking = asyncio.create_task(client.post("/query", json={"prompt": "Hi"}))
        await model.asked(0)
        signal.raise_signal(signal.SIGTERM)
        await until(ready(client, 503))
        signal.raise_signal(signal.SIGINT)
        assert stops == [signal.SIGINT]
        asking.cancel()
        await asyncio.wait({asking})
        assert client.app.state.engine.draining


async def test_handlers_are_as_before_when_the_service_has_stopped(tmp_path: Path, stops: list[int]) -> None:
    before = [signal.getsignal(number) for number in HANDLED]
    async with served(tmp_path):
        assert [signal.getsignal(number) for number in HANDLED] != before
    assert [signal.getsignal(number) for number in HANDLED] == before
    signal.raise_signal(signal.SIGTERM)
    assert stops == [signal.SIGTERM]


async def test_server_that_would_wait_for_ever_gets_a_limit(tmp_path: Path, stops: list[int]) -> None:
    started_by_hand = uvicorn.Server(uvicorn.Config("server:app", log_config=None))
    signal.signal(signal.SIGTERM, started_by_hand.handle_exit)
    async with served(tmp_path):
        assert started_by_hand.config.timeout_graceful_shutdown == server.CLOSE_SECONDS


async def test_signal_that_is_not_handled_stays_so(tmp_path: Path, stops: list[int]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    async with served(tmp_path):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


async def test_service_runs_in_any_thread(tmp_path: Path) -> None:
    async def serve() -> int:
        async with served(tmp_path) as client:
            return (await client.get("/ready")).status_code

    before = [signal.getsignal(number) for number in HANDLED]
    assert await asyncio.to_thread(asyncio.run, serve()) == 200
    assert [signal.getsignal(number) for number in HANDLED] == before


@pytest.mark.parametrize("alone", [True, False])
async def test_collector_is_spared_where_the_process_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    frozen: list[object] = []
    monkeypatch.setattr("gc.freeze", lambda: frozen.append("all"))
    monkeypatch.setattr("gc.set_threshold", frozen.append)
    app = server.create_app(settings_in(tmp_path), model=ScriptedModel(), alone=alone)
    with logging_left_alone():
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0)  # it is what the loop does next
            assert frozen == (["all", server.COLLECT_EVERY] if alone else [])
