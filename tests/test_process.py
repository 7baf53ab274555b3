"""``python server.py``, up to where it would serve."""

import gc
import os
import socket
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette

import server
from settings import load_settings

pytestmark = pytest.mark.usefixtures("bare")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[uvicorn.Config, socket.socket]]]:
    """What would be served, and on which socket."""
    served: list[tuple[uvicorn.Config, socket.socket]] = []

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        served.append((self.config, sockets[0]))

    class Multiprocess:
        def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
            served.append((config, sockets[0]))

        def run(self) -> None:
            pass

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setattr(server, "Multiprocess", Multiprocess)
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)
    yield served
    for _, listener in served:
        listener.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_process_serves_what_its_workers_read_from_the_environment(
    served: list[tuple[uvicorn.Config, socket.socket]], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    arguments = ["--port", "0", "--workers", str(workers), "--openai-api-key", "sk-1", "--crash-recovery", "interrupt"]
    arguments += ["--system-prompt", "None"]
    monkeypatch.setattr("sys.argv", ["server.py", *arguments])
    server.main()
    [(config, listener)] = served
    assert (config.app, config.workers) == ("server:app", workers)
    again = load_settings([])
    assert again.openai_api_key is not None
    assert again.system_prompt is None
    assert (again.workers, again.openai_api_key.get_secret_value()) == (workers, "sk-1")
    assert again.crash_recovery == "interrupt"
    assert listener.getsockname()[0] == "127.0.0.1"
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * server.SEND_BUFFER  # Linux doubles it
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


def test_collector_is_at_work_again_when_all_is_imported(
    served: list[tuple[uvicorn.Config, socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["server.py", "--port", "0"])
    gc.disable()  # as server.py does before its imports
    try:
        server.main()
        assert gc.isenabled()
    finally:
        gc.enable()
    assert len(served) == 1


def test_process_serves_also_where_readers_that_stall_cannot_be_dropped(
    served: list[tuple[uvicorn.Config, socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")  # as on macOS
    monkeypatch.setattr("sys.argv", ["server.py", "--port", "0"])
    server.main()
    assert len(served) == 1


def test_application_is_made_when_it_is_asked_for() -> None:
    os.environ["SERVICE_NAME"] = "mine"
    app = server.app
    assert isinstance(app, Starlette)
    assert app.state.service.name == "mine"
    assert server.app is not app
    with pytest.raises(AttributeError):
        server.ap  # noqa: B018
