import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

import server
from chat.echo import EchoModel
from chat.engine import Timing
from chat.generation import CrashRecovery, Policy
from chat.model import OpenAIModel
from server import XAI, Settings, load_settings, model_of, policy_of, timing_of
from tests.serving import settings_in


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ``.env``, and no variables but those that a test sets."""
    monkeypatch.chdir(tmp_path)
    names = {name.upper() for name in Settings.model_fields}
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in names})


# --- where they come from


def test_without_any_setting_it_is_a_service_to_try_out() -> None:
    settings = load_settings([])
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.database == Path("data/parley.db")
    assert settings.database.parent.is_dir()
    assert isinstance(model_of(settings), EchoModel)
    assert settings.origins == []


def test_command_line_goes_before_environment_and_that_before_the_file() -> None:
    Path(".env").write_text("PORT=1\nHOST=file\nSERVICE_NAME=file\n")
    os.environ.update(PORT="2", HOST="environment")
    settings = load_settings(["--port", "3"])
    assert (settings.port, settings.host, settings.service_name) == (3, "environment", "file")


def test_empty_variable_counts_as_none() -> None:
    os.environ.update(OPENAI_API_KEY="", BASE_URL="", PORT="", ALLOWED_ORIGINS="")
    settings = load_settings([])
    assert (settings.openai_api_key, settings.base_url, settings.port, settings.origins) == (None, None, 8000, [])


def test_unknown_variables_in_the_file_are_others_business() -> None:
    Path(".env").write_text("POSTGRES_PASSWORD=x\nPORT=1\n")
    assert load_settings([]).port == 1


@pytest.mark.parametrize("level", ["debug", "Warning", "ERROR"])
def test_log_level_is_taken_in_any_case(level: str) -> None:
    os.environ["LOG_LEVEL"] = level
    assert load_settings([]).log_level == level.upper()


# --- what is wrong


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("WORKERS", "0"),
        ("LOG_LEVEL", "LOUD"),
        ("DATABASE_URL", "postgres://localhost/parley"),
        ("DATABASE_URL", "sqlite:///"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "sqlite:///folder/"),
        ("DATABASE_URL", "sqlite:///parley.db?mode=ro"),
        ("BASE_URL", "localhost:8080"),
        ("BASE_URL", "http://"),
        ("BASE_URL", "ftp://localhost"),
        ("ALLOWED_ORIGINS", "chat.example.org"),
        ("ALLOWED_ORIGINS", "https://a.example,https://b.example/path"),
        ("CRASH_RECOVERY", "shrug"),
        ("LEASE_SECONDS", "0"),
        ("PING_SECONDS", "0"),
        ("EVENT_RETENTION", "inf"),
        ("SEND_TIMEOUT", "inf"),
        ("REQUEST_TIMEOUT", "nan"),
    ],
)
def test_wrong_setting_ends_the_start_with_one_line(name: str, value: str) -> None:
    os.environ[name] = value
    os.environ["OPENAI_API_KEY"] = "sk-my-secret"
    with pytest.raises(SystemExit) as caught:
        load_settings([])
    message = str(caught.value.code)
    assert message.startswith(f"Wrong setting: {name}: ")
    assert "\n" not in message
    assert "sk-my-secret" not in message


def test_all_wrong_settings_are_named_at_once() -> None:
    os.environ.update(PORT="http", WORKERS="none")
    with pytest.raises(SystemExit, match=r"Wrong setting: PORT: .*; WORKERS: ") as caught:
        load_settings([])
    assert caught.value.code != 0


def test_folder_that_cannot_be_made_ends_the_start_with_one_line() -> None:
    Path("file").touch()
    os.environ["DATABASE_URL"] = "sqlite:///file/data/parley.db"
    with pytest.raises(SystemExit, match="Wrong setting: DATABASE_URL: its folder cannot be made: Not a directory"):
        load_settings([])


def test_unknown_option_ends_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(["--prot", "1"])
    assert caught.value.code == 2
    assert "--prot" in capsys.readouterr().err


def test_keys_are_not_shown() -> None:
    settings = Settings(openai_api_key="sk-my-secret", grok_api_key="xai-my-secret")
    assert "my-secret" not in repr(settings) + str(settings) + repr(settings.model_dump())


# --- what they lead to


@pytest.mark.parametrize(
    ("given", "name", "base_url", "key"),
    [
        ({"openai_api_key": "k"}, "gpt-4o-mini", "https://api.openai.com/v1", "k"),
        ({"openai_api_key": "k", "model_name": "gpt-x"}, "gpt-x", "https://api.openai.com/v1", "k"),
        ({"base_url": "http://localhost:1/v1"}, "gpt-4o-mini", "http://localhost:1/v1", "none"),
        ({"base_url": "http://localhost:1/v1", "grok_api_key": "g"}, "gpt-4o-mini", "http://localhost:1/v1", "none"),
        ({"grok_api_key": "g"}, "grok-3-mini-latest", XAI, "g"),
        ({"grok_api_key": "g", "grok_model": "grok-x"}, "grok-x", XAI, "g"),
        ({"grok_api_key": "g", "openai_api_key": "k"}, "gpt-4o-mini", "https://api.openai.com/v1", "k"),
    ],
)
async def test_key_or_endpoint_makes_the_model_a_real_one(
    tmp_path: Path, given: dict[str, Any], name: str, base_url: str, key: str
) -> None:
    model = model_of(settings_in(tmp_path, **given))
    assert isinstance(model, OpenAIModel)
    assert model.name == name
    assert str(model._client.base_url).rstrip("/") == base_url
    assert model._client.api_key == key
    await model.close()


@pytest.mark.parametrize(
    "given", [{}, {"model_name": "gpt-x"}, {"model_name": "echo", "openai_api_key": "k", "grok_api_key": "g"}]
)
def test_without_key_and_endpoint_or_by_its_name_the_model_is_echo(tmp_path: Path, given: dict[str, Any]) -> None:
    assert isinstance(model_of(settings_in(tmp_path, **given)), EchoModel)


def test_policy_and_timing_are_as_set(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, system_prompt="Be kind", context_tokens=1, model_retries=3, max_answer_chars=4,
        crash_recovery="interrupt", lease_seconds=5, event_retention=6,
    )  # fmt: skip
    assert policy_of(settings) == Policy("Be kind", 1, 3, answer_limit=4, crash_recovery=CrashRecovery.INTERRUPT)
    assert timing_of(settings) == Timing(lease=5, retention=6)
    assert policy_of(settings_in(tmp_path)) == Policy()
    assert timing_of(settings_in(tmp_path)) == Timing()


# --- the process


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
