import gc
import json
import os
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette

import server
from chat.context import Budgets
from chat.engine import Timing
from chat.events import TextDelta
from chat.memory import MemoryPolicy
from chat.model import OpenAIModel
from chat.policy import CrashRecovery, Policy
from chat.ports import ModelRequest
from chat.providers import ECHO
from chat.routing import Choice
from chat.usage import Price
from server import budgets_of, memory_of, model_of, policy_of, prices_of, timing_of, tools_of
from settings import Settings, load_settings
from tests.asking import HELLO, ask
from tests.serving import settings_in
from tests.upstream import Upstream, completion


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
    assert settings.default_model.provider == ECHO
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


def test_tools_that_are_not_there_end_the_start_with_one_line() -> None:
    with pytest.raises(SystemExit) as caught:
        tools_of(load_settings(["--tools", "examples.town_hall, nowhere.tools"]))
    assert str(caught.value) == "Wrong setting: TOOLS: nowhere.tools cannot be imported: No module named 'nowhere'"


def test_mcp_servers_that_are_wrong_end_the_start_with_one_line() -> None:
    Path("mcp.json").write_text('{"mcpServers": {"web": {"url": "http://localhost/mcp", "aproval": true}}}')
    with pytest.raises(SystemExit) as caught:
        load_settings(["--mcp-servers", "mcp.json"])
    assert str(caught.value) == "Wrong setting: MCP_SERVERS: web.aproval: Extra inputs are not permitted"


def test_mcp_servers_without_the_package_are_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("settings.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as caught:
        load_settings(["--mcp-servers", "mcp.json"])
    assert str(caught.value) == (
        "Wrong setting: MCP_SERVERS: the package mcp is missing. Install it: ./scripts/install.sh requirements-mcp.txt"
    )


def test_placeholders_are_looked_up_where_settings_are() -> None:
    headers = {"one": "${ONE}", "two": "${TWO}"}
    servers = {"mcpServers": {"web": {"url": "http://localhost/mcp", "headers": headers}}}
    Path("mcp.json").write_text(json.dumps(servers))
    Path(".env").write_text("MCP_SERVERS=mcp.json\nONE=of the file\nTWO=of the file\n")
    os.environ["TWO"] = "of the environment"
    [server] = load_settings([]).server_configs
    assert server.headers == {"one": "of the file", "two": "of the environment"}


def test_tools_bring_a_prompt_for_where_none_is_set() -> None:
    tools = tools_of(load_settings(["--tools", "examples.town_hall"]))
    assert policy_of(load_settings([]), prompt=tools.prompt).system_prompt == tools.prompt
    assert policy_of(load_settings(["--system-prompt", "Mine."]), prompt=tools.prompt).system_prompt == "Mine."


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
        ("METRICS", "perhaps"),
        ("MODEL_CONTEXT_TOKENS", "100000"),
        ("MODEL_CONTEXT_TOKENS", '{"gpt": 0}'),
        ("MODEL_CONTEXT_TOKENS", '{"gpt": 1.5}'),
        ("MODEL_CONTEXT_TOKENS", '{"gpt": 1e18}'),
        ("CONTEXT_TOKENS", "1000000000000000000"),
        ("MODEL_CONTEXT_TOKENS", '{"gpt": {"input": 1}}'),
        ("SUMMARIES", "perhaps"),
        ("TITLES", "perhaps"),
        ("PRICES", "cheap"),
        ("PRICES", "[]"),
        ("PRICES", '{"gpt": 1}'),
        ("PRICES", '{"gpt": {"input": 1}}'),
        ("PRICES", '{"gpt": {"input": -1, "output": 1}}'),
        ("PRICES", '{"gpt": {"input": 1, "output": 1e9}}'),
        ("PRICES", '{"gpt": {"input": NaN, "output": 1}}'),
        ("PRICES", '{"gpt": {"input": 1, "output": 1, "ouput": 2}}'),
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


def test_wrong_price_is_named_with_an_example_of_a_good_one() -> None:
    os.environ["PRICES"] = '{"gpt": {"input": 1}}'
    with pytest.raises(SystemExit) as caught:
        load_settings([])
    example = '{"gpt-4o-mini": {"input": 0.15, "cached": 0.075, "output": 0.6}}'
    assert caught.value.code == (
        f"Wrong setting: PRICES: gpt.output: Field required; use dollars for a million tokens, such as {example}"
    )


def test_wrong_budget_is_named_with_an_example_of_a_good_one() -> None:
    os.environ["MODEL_CONTEXT_TOKENS"] = '{"gpt": "much"}'
    with pytest.raises(
        SystemExit, match=r"^Wrong setting: MODEL_CONTEXT_TOKENS: gpt: .*; use whole numbers of tokens,"
    ):
        load_settings([])


def test_budgets_are_as_set(tmp_path: Path) -> None:
    given = {"context_tokens": 1, "model_context_tokens": '{"gpt": 9}', "fallback_models": "echo"}
    assert budgets_of(settings_in(tmp_path, **given)) == Budgets(1, {"gpt": 9}, ("echo",))
    assert budgets_of(settings_in(tmp_path)) == Budgets()


def test_memory_is_as_set(tmp_path: Path) -> None:
    assert memory_of(settings_in(tmp_path)) == MemoryPolicy(summaries=True)
    settings = settings_in(tmp_path, summaries=False, titles=True, summary_model="ollama/a", title_model="echo")
    assert memory_of(settings) == MemoryPolicy(titles=True, summary_model="ollama/a", title_model="echo")
    assert [target.id for target in settings.memorisers] == ["ollama/a", "echo"]
    router = model_of(settings)
    assert [choice.id for choice in router.choices()] == ["echo"]
    assert router._known.keys() == {"echo", "ollama/a"}


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


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it cannot be read: No such file or directory: prompts"),
        ({"a.txt": "{{ x"}, "a.txt, line 1: unexpected end of template, expected 'end of print statement'"),
        ({"b.txt": "{{ x }}", "a b.md": ""}, "a b.md: a template's name has 1 to 64 of A-Z, a-z, 0-9, _ and -"),
    ],
)
def test_broken_template_ends_the_start_with_one_line(files: dict[str, str], message: str) -> None:
    for name, source in files.items():
        Path("prompts").mkdir(exist_ok=True)
        Path("prompts", name).write_text(source)
    os.environ["TEMPLATES_DIR"] = "prompts"
    with pytest.raises(SystemExit) as caught:
        load_settings([])
    assert caught.value.code == f"Wrong setting: TEMPLATES_DIR: {message}"


def test_unknown_option_ends_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(["--prot", "1"])
    assert caught.value.code == 2
    assert "--prot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, "http://localhost:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otlp.example/in/"}, "https://otlp.example/in/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://otlp.example/in"}, "https://otlp.example/in"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b"},
            "http://a",
        ),
    ],
)
def test_traces_go_where_opentelemetry_says(given: dict[str, str], endpoint: str | None) -> None:
    os.environ.update(given)
    assert load_settings([]).traces_endpoint == endpoint


@pytest.mark.parametrize("headers", ["a=1", "authorization=Basic%20Zm9v", "a=1, b=2", "a=", "k=a=b"])
def test_headers_are_pairs(headers: str) -> None:
    os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = headers
    assert load_settings([]).otel_exporter_otlp_headers is not None


@pytest.mark.parametrize("headers", ["sk-canary", "a=1;sk-canary", "a=1,sk-canary", 'a="sk-canary"', "=sk-canary"])
def test_headers_that_are_none_are_not_shown(headers: str) -> None:
    os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = headers
    with pytest.raises(SystemExit) as ended:
        load_settings([])
    assert str(ended.value).startswith("Wrong setting: OTEL_EXPORTER_OTLP_HEADERS: use name=value")
    assert "canary" not in str(ended.value)


def test_keys_are_not_shown() -> None:
    settings = Settings(openai_api_key="sk-my-secret", grok_api_key="xai-my-secret")
    assert "my-secret" not in repr(settings) + str(settings) + repr(settings.model_dump())


# --- what they lead to


def test_prices_are_exact_and_cached_input_costs_as_all_input_if_nothing_is_said() -> None:
    given = '{"a": {"input": 0.15, "cached": 0.075, "output": 0.6}, "b": {"input": 3, "output": 15}}'
    prices = prices_of(load_settings(["--prices", given]))
    assert prices == {
        "a": Price(Decimal("0.15"), Decimal("0.6"), cached=Decimal("0.075")),
        "b": Price(Decimal(3), Decimal(15), cached=Decimal(3)),
    }
    assert prices_of(load_settings([])) == {}


@pytest.mark.parametrize(
    ("given", "name", "base_url", "key"),
    [
        ({"openai_api_key": "k"}, "gpt-4o-mini", "https://api.openai.com/v1", "k"),
        ({"openai_api_key": "k", "model_name": "gpt-x"}, "gpt-x", "https://api.openai.com/v1", "k"),
        ({"base_url": "http://localhost:1/v1"}, "gpt-4o-mini", "http://localhost:1/v1", "none"),
        ({"base_url": "http://localhost:1/v1", "grok_api_key": "g"}, "gpt-4o-mini", "http://localhost:1/v1", "none"),
        ({"grok_api_key": "g"}, "grok-3-mini-latest", "https://api.x.ai/v1", "g"),
        ({"grok_api_key": "g", "grok_model": "grok-x"}, "grok-x", "https://api.x.ai/v1", "g"),
        ({"grok_api_key": "g", "openai_api_key": "k"}, "gpt-4o-mini", "https://api.openai.com/v1", "k"),
    ],
)
def test_key_or_endpoint_makes_the_model_a_real_one(
    tmp_path: Path, given: dict[str, Any], name: str, base_url: str, key: str
) -> None:
    settings = settings_in(tmp_path, **given)
    [model] = settings.offered
    assert (model.id, model.base_url, model.api_key) == (name, base_url, key)
    assert model_of(settings).name == name


@pytest.mark.parametrize(
    "given", [{}, {"model_name": "gpt-x"}, {"model_name": "echo", "openai_api_key": "k", "grok_api_key": "g"}]
)
async def test_without_key_and_endpoint_or_by_its_name_the_model_is_echo(tmp_path: Path, given: dict[str, Any]) -> None:
    router = model_of(settings_in(tmp_path, stream_delay=0, **given))
    assert router.choices() == [Choice("echo", "echo", default=True, available=True, context_tokens=16_000)]
    parts, _ = await ask(router)
    assert parts[:1] == [TextDelta("secret ")]


def test_models_are_offered_and_fall_back_as_set(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, base_url="http://here/v1", model_name="groq/x", groq_api_key="g",
        allowed_models="echo, groq/y,groq/x,,echo", fallback_models="groq/x,ollama/m",
    )  # fmt: skip
    assert [target.id for target in settings.offered] == ["groq/x", "echo", "groq/y"]
    assert settings.default_model.provider == "custom"
    assert [(target.id, target.provider) for target in settings.fallbacks] == [
        ("groq/x", "custom"),
        ("ollama/m", "ollama"),
    ]


async def test_provider_is_asked_as_set(tmp_path: Path) -> None:
    async with Upstream(completion("Hi")) as upstream:
        router = model_of(
            settings_in(
                tmp_path,
                model_name="vllm/a/b",
                vllm_base_url=upstream.base_url,
                vllm_api_key="v",
                connect_timeout=3,
                request_timeout=4,
                first_token_timeout=50,
            )
        )
        assert (await ask(router, ModelRequest(HELLO.messages, model="vllm/a/b")))[1] is None
        client = router._clients["vllm"]
        await router.close()
        [request] = upstream.requests
    assert (request.body["model"], request.headers["authorization"]) == ("a/b", "Bearer v")
    assert isinstance(client, OpenAIModel)
    assert (client.name, client._first_timeout, client._silence_timeout) == ("vllm", 50, 4)
    assert client._client.timeout == httpx2.Timeout(None, connect=3, pool=3)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MODEL_NAME": "groq/x"}, "groq/x needs GROQ_API_KEY"),
        ({"ALLOWED_MODELS": "gpt-4o"}, "gpt-4o needs OPENAI_API_KEY"),
        ({"FALLBACK_MODELS": "echo,xai/grok-4"}, "xai/grok-4 needs XAI_API_KEY or GROK_API_KEY"),
        ({"FALLBACK_MODELS": "custom/m"}, "custom/m needs BASE_URL"),
        ({"SUMMARY_MODEL": "groq/x"}, "groq/x needs GROQ_API_KEY"),
        ({"TITLE_MODEL": "gpt-4o"}, "gpt-4o needs OPENAI_API_KEY"),
    ],
)
def test_model_without_its_key_ends_the_start_with_one_line(variables: dict[str, str], message: str) -> None:
    os.environ.update(variables)
    with pytest.raises(SystemExit, match=f"^Wrong setting: {message}$"):
        load_settings([])


def test_policy_and_timing_are_as_set(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, system_prompt="Be kind", context_tokens=1, model_retries=3, max_answer_chars=4,
        crash_recovery="interrupt", lease_seconds=5, event_retention=6,
    )  # fmt: skip
    assert policy_of(settings) == Policy(
        "Be kind", Budgets(1), 3, answer_limit=4, crash_recovery=CrashRecovery.INTERRUPT
    )
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
