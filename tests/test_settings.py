import json
import os
import resource
from pathlib import Path

import pytest

from chat.providers import ECHO, KEYLESS
from composition import descriptors, http_of, limits_of
from handlers.connections import Connection
from settings import Settings, load_settings

pytestmark = pytest.mark.usefixtures("bare")


# --- where they come from


def test_without_any_setting_it_is_a_service_to_try_out() -> None:
    settings = load_settings([])
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.database == Path("data/parley.db")
    assert Path("data").is_dir()
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


# --- whose pages may ask


ORIGINS = "https://chat.example.org, http://localhost:5173,http://a.example:443,https://[::1]:8443,https://[::80],*"


def test_origins_are_taken_as_browsers_write_them() -> None:
    assert load_settings(["--allowed-origins", ORIGINS]).origins == [origin.strip() for origin in ORIGINS.split(",")]


@pytest.mark.parametrize("origins", ["*", " * ", "https://chat.example.org,*", "", None])
def test_cookies_of_readers_of_any_page_end_the_start_with_one_line(origins: str | None) -> None:
    os.environ["ALLOW_CREDENTIALS"] = "true"
    if origins is not None:
        os.environ["ALLOWED_ORIGINS"] = origins
    with pytest.raises(SystemExit) as caught:
        load_settings([])
    assert str(caught.value.code) == (
        "Wrong setting: ALLOW_CREDENTIALS: set ALLOWED_ORIGINS to the origins of your own pages, such as "
        "https://chat.example.org: with * or without any, others' pages could ask in their readers' names"
    )


def test_cookies_are_taken_along_from_pages_that_are_named() -> None:
    settings = load_settings(["--allow-credentials", "true", "--allowed-origins", "https://chat.example.org"])
    assert (settings.allow_credentials, settings.origins) == (True, ["https://chat.example.org"])


# --- what is wrong


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


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hush@db.example.org:5432/parley",
        "postgres://localhost/parley",
        "postgresql:///parley?host=/var/run/postgresql",
        "postgresql://pooler.example.org:6543/postgres?sslmode=require&statement_cache_size=0",
    ],
)
def test_postgresql_needs_no_folder(url: str) -> None:
    settings = load_settings(["--database-url", url])
    assert (settings.database_url, settings.database) == (url, None)
    assert not Path("data").exists()
    assert "hush" not in repr(settings)


def test_postgresql_without_the_package_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("settings.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as caught:
        load_settings(["--database-url", "postgresql://ann:secret@localhost/parley"])
    assert str(caught.value) == (
        "Wrong setting: DATABASE_URL: the package asyncpg is missing. "
        "Install it: ./scripts/install.sh requirements-postgres.txt"
    )


def test_placeholders_are_looked_up_where_settings_are() -> None:
    headers = {"one": "${ONE}", "two": "${TWO}"}
    servers = {"mcpServers": {"web": {"url": "http://localhost/mcp", "headers": headers}}}
    Path("mcp.json").write_text(json.dumps(servers))
    Path(".env").write_text("MCP_SERVERS=mcp.json\nONE=of the file\nTWO=of the file\n")
    os.environ["TWO"] = "of the environment"
    [server] = load_settings([]).server_configs
    assert server.headers == {"one": "of the file", "two": "of the environment"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("WORKERS", "0"),
        ("LOG_LEVEL", "LOUD"),
        ("DATABASE_URL", "mysql://localhost/parley"),
        ("DATABASE_URL", "postgresql://localhost"),
        ("DATABASE_URL", "postgresql://localhost/"),
        ("DATABASE_URL", "postgresql+asyncpg://localhost/parley"),
        ("DATABASE_URL", "postgresql://localhost/parley?statement_cache_size=none"),
        ("DATABASE_URL", "sqlite:///"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "sqlite:///folder/"),
        ("DATABASE_URL", "sqlite:///parley.db?mode=ro"),
        ("BASE_URL", "localhost:8080"),
        ("BASE_URL", "http://"),
        ("BASE_URL", "ftp://localhost"),
        ("ALLOWED_ORIGINS", "chat.example.org"),
        ("ALLOWED_ORIGINS", "https://a.example,https://b.example/path"),
        ("ALLOWED_ORIGINS", "https://*.example.org"),
        ("ALLOWED_ORIGINS", "https://*"),
        ("ALLOWED_ORIGINS", "http*://a.example"),
        ("ALLOWED_ORIGINS", ".*"),
        ("ALLOWED_ORIGINS", "null"),
        ("ALLOWED_ORIGINS", "https://A.example"),
        ("ALLOWED_ORIGINS", "https://a.example:443"),
        ("ALLOWED_ORIGINS", "http://a.example:80"),
        ("ALLOWED_ORIGINS", "https://ann@a.example"),
        ("ALLOWED_ORIGINS", "https://a.example?b"),
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "AUTH: jwt needs JWT_SECRET or JWT_JWKS_URL, and not both"),
        ({"JWT_SECRET": "s" * 32, "JWT_JWKS_URL": "https://a.example"}, "AUTH: jwt needs JWT_SECRET or JWT_JWKS_URL,"),
        ({"JWT_SECRET": "s" * 31}, "JWT_SECRET: use at least 32 bytes"),
        ({"JWT_SECRET": "s" * 63, "JWT_ALGORITHMS": "HS256,HS512"}, "JWT_SECRET: use at least 64 bytes"),
        ({"JWT_SECRET": "s" * 32, "JWT_ALGORITHMS": "none"}, "JWT_ALGORITHMS: none: use HS256,"),
        ({"JWT_SECRET": "s" * 32, "JWT_ALGORITHMS": "HS256,RS256"}, "JWT_ALGORITHMS: RS256: use HS256,"),
        ({"JWT_JWKS_URL": "login.example"}, "JWT_JWKS_URL: use http:// or https:// and a host"),
        ({"JWT_JWKS_URL": "https://a.example"}, "JWT_JWKS_URL: set JWT_ISSUER and JWT_AUDIENCE, too"),
        ({"JWT_JWKS_URL": "https://a.example", "JWT_ISSUER": "a"}, "JWT_JWKS_URL: set JWT_ISSUER and JWT_AUDIENCE"),
        (
            {"JWT_JWKS_URL": "https://a.example", "JWT_ISSUER": "a", "JWT_AUDIENCE": "b", "JWT_ALGORITHMS": "HS256"},
            "JWT_ALGORITHMS: HS256: use RS256,",
        ),
    ],
)
def test_tokens_that_could_not_be_checked_end_the_start_with_one_line(given: dict[str, str], message: str) -> None:
    os.environ.update(given, AUTH="jwt")
    with pytest.raises(SystemExit) as caught:
        load_settings([])
    assert str(caught.value.code).startswith(f"Wrong setting: {message}")
    assert "sss" not in str(caught.value.code)


def test_tokens_without_the_package_are_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("settings.find_spec", lambda _: None)
    os.environ.update(AUTH="jwt", JWT_SECRET="s" * 32)
    with pytest.raises(SystemExit) as caught:
        load_settings([])
    install = "Install it: ./scripts/install.sh requirements-jwt.txt"
    assert str(caught.value.code) == f"Wrong setting: AUTH: the package pyjwt is missing. {install}"


@pytest.mark.parametrize(
    ("given", "pinned"),
    [
        ({"JWT_SECRET": "s" * 32}, ["HS256"]),
        ({"JWT_JWKS_URL": "https://a.example"}, ["RS256", "ES256"]),
        ({"JWT_JWKS_URL": "https://a.example", "JWT_ALGORITHMS": "EdDSA"}, ["EdDSA"]),
    ],
)
def test_algorithms_are_pinned_by_what_signs(given: dict[str, str], pinned: list[str]) -> None:
    os.environ.update(given, AUTH="jwt", JWT_ISSUER="a", JWT_AUDIENCE="b")
    assert load_settings([]).pinned_algorithms == pinned


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


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MODEL_NAME": "groq/x"}, "groq/x needs GROQ_API_KEY"),
        ({"ALLOWED_MODELS": "gpt-4o"}, "gpt-4o needs OPENAI_API_KEY"),
        ({"FALLBACK_MODELS": "echo,xai/grok-4"}, "xai/grok-4 needs XAI_API_KEY or GROK_API_KEY"),
        ({"FALLBACK_MODELS": "custom/m"}, "custom/m needs BASE_URL"),
        ({"SUMMARY_MODEL": "groq/x"}, "groq/x needs GROQ_API_KEY"),
        ({"TITLE_MODEL": "gpt-4o"}, "gpt-4o needs OPENAI_API_KEY"),
        ({"EMBEDDING_MODEL": "mistral/embed"}, "mistral/embed needs MISTRAL_API_KEY"),
        ({"EMBEDDING_MODEL": "echo"}, "EMBEDDING_MODEL: echo makes no embeddings"),
    ],
)
def test_model_without_its_key_ends_the_start_with_one_line(variables: dict[str, str], message: str) -> None:
    os.environ.update(variables)
    with pytest.raises(SystemExit, match=f"^Wrong setting: {message}$"):
        load_settings([])


def test_embeddings_need_what_compares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("settings.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        load_settings(["--embedding-model", "ollama/nomic-embed-text"])
    assert str(ended.value) == (
        "Wrong setting: EMBEDDING_MODEL: the package numpy is missing. "
        "Install it: ./scripts/install.sh requirements-vectors.txt"
    )


def test_embeddings_come_from_a_models_endpoint_or_from_their_own() -> None:
    assert load_settings([]).embedder is None
    found = load_settings(["--embedding-model", "ollama/nomic-embed-text"]).embedder
    assert found is not None
    assert (found.name, found.base_url) == ("nomic-embed-text", "http://localhost:11434/v1")
    os.environ.update(EMBEDDING_BASE_URL="http://localhost:8080/v1", EMBEDDING_MODEL="openai/bge")
    found = load_settings([]).embedder
    assert found is not None
    assert (found.id, found.name, found.base_url) == ("openai/bge", "openai/bge", "http://localhost:8080/v1")
    assert found.api_key == KEYLESS
    os.environ["EMBEDDING_API_KEY"] = "sk-my-secret"
    settings = load_settings([])
    assert settings.embedder is not None
    assert settings.embedder.api_key == "sk-my-secret"
    assert "my-secret" not in repr(settings) + repr(settings.embedder)


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("--embedding-dimensions", "0", "EMBEDDING_DIMENSIONS: Input should be greater than or equal to 1"),
        ("--embedding-base-url", "localhost", "EMBEDDING_BASE_URL: use http:// or https:// and a host"),
        ("--request-rate", "many", "REQUEST_RATE: use numbers of seconds, minutes, hours or days"),
        ("--run-rate", "0/minute", "RUN_RATE: use numbers of seconds, minutes, hours or days"),
        ("--anonymous-rate", "ten", "ANONYMOUS_RATE: use numbers of seconds, minutes, hours or days"),
        ("--wrong-key-rate", "1/week", "WRONG_KEY_RATE: use numbers of seconds, minutes, hours or days"),
        ("--unlimited-addresses", "10.0.0.1/8", "UNLIMITED_ADDRESSES: 10.0.0.1/8 has host bits set; use networks"),
        ("--max-runs", "-1", "MAX_RUNS: Input should be greater than or equal to 0"),
    ],
)
def test_limits_that_make_no_sense_are_one_line(name: str, value: str, wrong: str) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings([name, value])
    assert str(caught.value).startswith(f"Wrong setting: {wrong}")


def test_limits_of_all_kinds_are_taken() -> None:
    settings = load_settings(["--request-rate", "0", "--run-rate", "5/2 minutes;1/day", "--unlimited-addresses", "0"])
    assert (settings.request_rate, settings.unlimited_networks) == ("0", [])
    assert limits_of(settings, float).policy == '"runs-120s";q=5;w=120, "runs-86400s";q=1;w=86400'
    assert [str(network) for network in load_settings([]).unlimited_networks] == ["127.0.0.0/8", "::1/128"]


def test_process_may_have_as_many_connections_as_it_can_get() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert descriptors() >= 256
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_where_there_is_no_httptools_uvicorn_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert http_of() is Connection
    monkeypatch.setattr("composition.find_spec", lambda _: None)
    assert http_of() == "auto"
