"""What can be set, where it is read from, and what is wrong with it."""

import os
import re
import sys
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from chat.prompts import Template
from chat.providers import CUSTOM, ECHO, KEYLESS, PRESETS, Directory, Target
from chat.vectors import MAX_DIMENSIONS

if TYPE_CHECKING:
    from mcp_tools.config import ServerConfig

HIGHEST_PRICE = 1_000_000
"""Dollars for a million tokens, a dollar each: what is more was given for one token, or in another currency."""


MOST_TOKENS = 10**9
"""Of a context: far above any model's, and yet a number of bytes that every store can count."""


SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class ModelPrice(BaseModel):
    """Dollars for a million tokens. ``cached``: of input that the upstream had read before; else as all input."""

    model_config = ConfigDict(extra="forbid")

    input: Decimal = Field(ge=0, le=HIGHEST_PRICE)
    output: Decimal = Field(ge=0, le=HIGHEST_PRICE)
    cached: Decimal | None = Field(None, ge=0, le=HIGHEST_PRICE)


_ORIGIN = re.compile(
    r"(http(?!.*:80$)|https(?!.*:443$))://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", re.ASCII
)
"""As a browser serializes it: lower case, no default port. https://html.spec.whatwg.org/multipage/browsers.html#origin"""

_HEADER = re.compile(r"[\w.!#$%&'*+|~^`-]+=[!#-+\--:<-\[\]-~ ]*", re.ASCII)
"""A name and a value without quotes, commas, semicolons and backslashes: https://www.w3.org/TR/baggage/."""

_POSTGRES = re.compile(r"postgres(ql)?://[^/\s?#]*/[^/\s?#]+(\?(?!(.*&)?statement_cache_size=\D)[^\s#]*)?")
"""With the database's name; whoever leaves it out would find the tables in one that is named like the user."""

_ONE_RATE = r"[1-9][0-9]{0,8}/([1-9][0-9]{0,4} ?)?(second|minute|hour|day)s?"
"""What the limits library reads, and a part of it: it takes 0 for a limit that nobody passes."""

_PRICES = TypeAdapter(dict[str, ModelPrice])

_TOKENS = TypeAdapter(dict[str, Annotated[int, Field(ge=1, le=MOST_TOKENS)]])


class Settings(BaseSettings):
    """Settings come from the command line, the environment and .env, in this order.

    `server.py keys --help` is about the keys of AUTH=keys, `server.py doctor --help` about the proxies in front of a
    service that runs, `server.py export --help` and `server.py import --help` about moving to another database,
    `server.py import-docs --help` about a folder of documents.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        allow_inf_nan=False,
        cli_prog_name="server.py",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(1, ge=1, le=64, description="Processes that share the database.")
    database_url: str = Field(
        "sqlite:///./data/parley.db", repr=False, description="Where conversations are kept: SQLite or PostgreSQL."
    )
    openai_api_key: SecretStr | None = Field(None, description="Key of the OpenAI-compatible endpoint.")
    base_url: str | None = Field(None, repr=False, description="OpenAI-compatible endpoint; default OpenAI's own.")
    model_name: str | None = Field(None, description="Model to ask; `echo` needs no key. Default gpt-4o-mini.")
    allowed_models: str | None = Field(None, description="Models that clients may ask for besides, by commas.")
    fallback_models: str | None = Field(None, description="Models to ask in turn when one fails, by commas.")
    grok_api_key: SecretStr | None = Field(None, description="Key for xAI, used when no other is set.")
    grok_model: str = Field("grok-3-mini-latest", description="Model to ask at xAI.")
    xai_api_key: SecretStr | None = Field(None, description="Key for xAI, goes before GROK_API_KEY.")
    anthropic_api_key: SecretStr | None = Field(None, description="Key for `anthropic/...`.")
    gemini_api_key: SecretStr | None = Field(None, description="Key for `gemini/...`.")
    groq_api_key: SecretStr | None = Field(None, description="Key for `groq/...`.")
    mistral_api_key: SecretStr | None = Field(None, description="Key for `mistral/...`.")
    deepseek_api_key: SecretStr | None = Field(None, description="Key for `deepseek/...`.")
    openrouter_api_key: SecretStr | None = Field(None, description="Key for `openrouter/...`.")
    vllm_api_key: SecretStr | None = Field(None, description="Key for `vllm/...`, if it wants one.")
    ollama_base_url: str = Field("http://localhost:11434/v1", repr=False, description="Where `ollama/...` is.")
    vllm_base_url: str = Field("http://localhost:8000/v1", repr=False, description="Where `vllm/...` is.")
    embedding_model: str | None = Field(
        None, description="Model that makes documents' embeddings; default none: they are found by words alone."
    )
    embedding_dimensions: int | None = Field(
        None, ge=1, le=MAX_DIMENSIONS, description="Numbers of each; default as many as the model has."
    )
    embedding_base_url: str | None = Field(
        None, repr=False, description="OpenAI-compatible endpoint for them, if it is none of the models'."
    )
    embedding_api_key: SecretStr | None = Field(None, description="Key for it, if it wants one.")
    system_prompt: str | None = Field(None, description="System message sent before every conversation.")
    templates_dir: Path | None = Field(None, description="Folder of prompt templates: NAME.txt, NAME.md or NAME.j2.")
    request_timeout: float = Field(30, gt=0, description="Longest silence of the model, in seconds.")
    first_token_timeout: float | None = Field(
        None, gt=0, description="Longest wait for its first token, in seconds; default REQUEST_TIMEOUT."
    )
    connect_timeout: float = Field(5, gt=0, description="Seconds to reach the model's endpoint.")
    model_retries: int = Field(2, ge=0, le=10, description="Repeats of a failed request while nothing was shown.")
    stream_delay: float = Field(0.1, ge=0, description="The echo model's pause between words, in seconds.")
    service_name: str = Field("parley", description="Name shown by / and /health.")
    allowed_origins: str | None = Field(None, description="CORS origins, by commas, or *. Default localhost, any port.")
    allow_credentials: bool = Field(
        default=False, description="Whether browsers send cookies along, for a proxy in front that wants some."
    )
    auth: Literal["none", "keys", "jwt"] = Field(
        "none", description="Who is let in: everybody, or who has a key or a token: see docs/security.md."
    )
    jwt_secret: SecretStr | None = Field(None, description="Secret that tokens are signed with, from 32 bytes on.")
    jwt_jwks_url: str | None = Field(
        None, repr=False, description="Where the public keys are that they are signed with instead."
    )
    jwt_algorithms: str | None = Field(
        None, description="How, by commas; default HS256 with a secret, RS256 and ES256 with public keys."
    )
    jwt_issuer: str | None = Field(None, description="The `iss` that tokens have to have.")
    jwt_audience: str | None = Field(None, description="The `aud` that they have to have.")
    anonymous_users: bool = Field(
        default=False, description="Whether anybody without a token is given an anonymous one, with AUTH=jwt."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    crash_recovery: Literal["continue", "interrupt"] = Field(
        "continue", description="What becomes of a half-shown answer when its process died."
    )
    drain_seconds: float = Field(20, ge=0, description="Seconds that running answers get when the process stops.")
    lease_seconds: float = Field(10, ge=0.3, description="Silence within which a frozen process loses its runs.")
    event_retention: float = Field(86_400, ge=0, description="Seconds that a finished run's events are kept.")
    history_retention: float | None = Field(
        None, gt=0, description="Seconds after which a conversation that nothing happens in is deleted; default never."
    )
    tools: str | None = Field(None, description="Modules whose tools the model may call, by commas.")
    mcp_servers: Path | None = Field(None, description="File that lists MCP servers whose tools the model may call.")
    max_steps: int = Field(8, ge=1, le=100, description="How often the model is asked in one run that calls tools.")
    run_seconds: float = Field(600, gt=0, description="Seconds that a run may take in all, its tools included.")
    max_run_tokens: int = Field(1_000_000, ge=1, description="Tokens that a run may use in all, in and out.")
    context_tokens: int = Field(16_000, ge=1, le=MOST_TOKENS, description="Budget of the history sent to the model.")
    model_context_tokens: str | None = Field(
        None, description="The same of single models, in JSON: see docs/models-and-tools.md."
    )
    passage_tokens: int = Field(
        2_000, ge=0, le=MOST_TOKENS, description="Budget of the passages of documents sent with a message."
    )
    search_documents: bool = Field(
        default=True, description="Whether the model may search the documents by itself, with a tool."
    )
    summaries: bool = Field(default=True, description="Whether what does not fit is summarised for the model.")
    summary_model: str | None = Field(None, description="Model that summarises; default the one that answered.")
    titles: bool = Field(default=False, description="Whether sessions without a title are given one by a model.")
    title_model: str | None = Field(None, description="Model that gives titles; default the one that answered.")
    max_message_chars: int = Field(100_000, ge=1, description="Longest message of a user.")
    max_answer_chars: int = Field(1_000_000, ge=1, description="Longest answer; it is cut and marked as failed.")
    max_body_bytes: int = Field(2_000_000, ge=1, description="Largest request body.")
    max_document_bytes: int = Field(10_000_000, ge=1, description="Largest document.")
    max_user_documents: int = Field(1_000, ge=0, description="Documents that a user may have; 0: any.")
    max_upload_bytes: int = Field(20_000_000, ge=1, description="Largest request body that brings files.")
    max_import_files: int = Field(200, ge=1, le=10_000, description="Most files that one request may bring.")
    header_seconds: float = Field(10, gt=0, description="Seconds that a request's head may take to arrive.")
    body_seconds: float = Field(30, gt=0, description="Seconds that its body may take then.")
    request_rate: str = Field("600/minute", description="Requests of a client, such as 10/second;600/minute; 0: any.")
    run_rate: str = Field("30/minute;600/day", description="Runs that a client starts; 0: any.")
    anonymous_rate: str = Field("10/minute;100/day", description="Anonymous users made for an address; 0: any.")
    wrong_key_rate: str = Field("30/minute", description="Wrong keys and tokens of an address; 0: any.")
    daily_tokens: int = Field(1_000_000, ge=0, description="Tokens that a client's runs use on a day; 0: any.")
    max_runs: int = Field(500, ge=0, description="Runs at a time in a process; 0: any.")
    max_client_runs: int = Field(8, ge=0, description="The same of one client.")
    max_streams: int = Field(5_000, ge=0, description="Open streams in a process; 0: any.")
    max_client_streams: int = Field(32, ge=0, description="The same of one client.")
    max_replays: int = Field(200, ge=0, description="Those of them that read an ended run; 0: any.")
    max_client_replays: int = Field(8, ge=0, description="The same of one client.")
    max_followers: int = Field(1_000, ge=0, description="Those of them that follow the same run; 0: any.")
    unlimited_addresses: str = Field(
        "127.0.0.0/8,::1", description="Networks whose clients are not counted by address; 0: none."
    )
    forwarded_allow_ips: str = Field(
        "127.0.0.1,::1", description="Proxies whose X-Forwarded-For is believed; * for all."
    )
    ping_seconds: float = Field(15, gt=0, description="Pause between the comments that keep a stream open.")
    send_timeout: float = Field(60, gt=0, description="Seconds after which a reader that stalls is dropped.")
    prices: str | None = Field(None, description="What models cost, in JSON: see docs/observing.md.")
    metrics: bool = Field(default=True, description="Whether /metrics is there.")
    chaos: bool = Field(default=False, description="Whether `?chaos=` breaks streams: see docs/clients.md.")
    otel_exporter_otlp_endpoint: str | None = Field(
        None, repr=False, description="Where traces go by OTLP over HTTP: see docs/observing.md."
    )
    otel_exporter_otlp_traces_endpoint: str | None = Field(
        None, repr=False, description="The same as a whole URL, to which no `/v1/traces` is added."
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(None, description="Headers for it: `name=value`, by commas.")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        """What is wrong is said without the value: there may be a password in it."""
        if _POSTGRES.fullmatch(value):
            if find_spec("asyncpg") is None:
                install = "./scripts/install.sh requirements-postgres.txt"
                raise ValueError(f"the package asyncpg is missing. Install it: {install}")
        elif not re.fullmatch(r"sqlite:///[^?]+", value) or value.endswith(("/", ":memory:")):
            raise ValueError(
                "use sqlite:///relative/path.db, sqlite:////absolute/path.db or postgresql://user:password@host/database"
            )
        return value

    @field_validator(
        "base_url",
        "embedding_base_url",
        "ollama_base_url",
        "vllm_base_url",
        "otel_exporter_otlp_endpoint",
        "otel_exporter_otlp_traces_endpoint",
        "jwt_jwks_url",
    )
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", value):
            raise ValueError("use http:// or https:// and a host")
        return value

    @field_validator("embedding_model")
    @classmethod
    def _comparable(cls, value: str | None) -> str | None:
        if value is not None and find_spec("numpy") is None:
            raise ValueError("the package numpy is missing. Install it: ./scripts/install.sh requirements-vectors.txt")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: str | None) -> str | None:
        """As browsers write them, for they are compared as text. A pattern would be one more way to let in too many."""
        for origin in (value or "*").split(","):
            if origin.strip() != "*" and not _ORIGIN.fullmatch(origin.strip()):
                example = "https://chat.example.org or http://localhost:5173"
                raise ValueError(f"name each origin as browsers do, such as {example}, without a path, or *")
        return value

    @field_validator("otel_exporter_otlp_headers")
    @classmethod
    def _pairs(cls, value: SecretStr | None) -> SecretStr | None:
        """What is wrong is said here and without the value: OpenTelemetry would log it, keys and all."""
        pairs = value.get_secret_value().split(",") if value else []
        if not all(_HEADER.fullmatch(pair.strip()) for pair in pairs):
            raise ValueError("use name=value, by commas, what is special in a value percent-encoded")
        return value

    @field_validator("prices")
    @classmethod
    def _priced(cls, value: str | None) -> str | None:
        example = '{"gpt-4o-mini": {"input": 0.15, "cached": 0.075, "output": 0.6}}'
        return _json(_PRICES, value, f"use dollars for a million tokens, such as {example}")

    @field_validator("model_context_tokens")
    @classmethod
    def _budgeted(cls, value: str | None) -> str | None:
        return _json(_TOKENS, value, 'use whole numbers of tokens, such as {"gpt-4o-mini": 100000}')

    @field_validator("request_rate", "run_rate", "anonymous_rate", "wrong_key_rate")
    @classmethod
    def _rate(cls, value: str) -> str:
        if not re.fullmatch(rf"0|{_ONE_RATE}(;{_ONE_RATE})*", value):
            raise ValueError("use numbers of seconds, minutes, hours or days, such as 10/second;600/minute, or 0")
        return value

    @field_validator("unlimited_addresses")
    @classmethod
    def _networks(cls, value: str) -> str:
        try:
            _networks_in(value)
        except ValueError as error:
            raise ValueError(f"{error}; use networks such as 10.0.0.0/8,fd00::/8, or 0") from None
        return value

    @property
    def unlimited_networks(self) -> list[IPv4Network | IPv6Network]:
        return _networks_in(self.unlimited_addresses)

    @property
    def price_table(self) -> Mapping[str, ModelPrice]:
        return _PRICES.validate_json(self.prices or "{}")

    @property
    def context_table(self) -> Mapping[str, int]:
        return _TOKENS.validate_json(self.model_context_tokens or "{}")

    @model_validator(mode="after")
    def _models_have_keys(self) -> Self:
        for name in ("default_model", "offered", "fallbacks", "memorisers", "embedder"):
            getattr(self, name)
        return self

    @model_validator(mode="after")
    def _cookies_come_from_known_pages(self) -> Self:
        """Any origin together with credentials is what browsers refuse, and servers get around by reflecting it."""
        if self.allow_credentials and (not self.origins or "*" in self.origins):
            raise ValueError(
                "ALLOW_CREDENTIALS: set ALLOWED_ORIGINS to the origins of your own pages, such as "
                "https://chat.example.org: with * or without any, others' pages could ask in their readers' names"
            )
        return self

    @model_validator(mode="after")
    def _tokens_can_be_checked(self) -> Self:
        if self.auth != "jwt":
            return self
        if find_spec("jwt") is None:
            raise ValueError(
                "AUTH: the package pyjwt is missing. Install it: ./scripts/install.sh requirements-jwt.txt"
            )
        if (self.jwt_secret is None) == (self.jwt_jwks_url is None):
            raise ValueError("AUTH: jwt needs JWT_SECRET or JWT_JWKS_URL, and not both")
        if self.jwt_jwks_url is not None and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError("JWT_JWKS_URL: set JWT_ISSUER and JWT_AUDIENCE, too: its keys sign for others as well")
        known = SECRET_ALGORITHMS if self.jwt_secret is not None else PUBLIC_ALGORITHMS
        if wrong := [name for name in self.pinned_algorithms if name not in known]:
            raise ValueError(f"JWT_ALGORITHMS: {', '.join(wrong)}: use {', '.join(known)}")
        if self.jwt_secret is not None:
            # As long as the hash: https://www.rfc-editor.org/rfc/rfc7518#section-3.2
            least = max(int(name.removeprefix("HS")) // 8 for name in self.pinned_algorithms)
            if len(self.jwt_secret.get_secret_value().encode()) < least:
                raise ValueError(f"JWT_SECRET: use at least {least} bytes: openssl rand -hex {least}")
        return self

    @property
    def pinned_algorithms(self) -> list[str]:
        """Those of tokens, with which a secret and public keys are never mixed up."""
        return _split(self.jwt_algorithms) or (["HS256"] if self.jwt_secret is not None else ["RS256", "ES256"])

    @property
    def default_model(self) -> Target:
        """The model that answers where none is asked for."""
        return self._directory().default(self.model_name, self.grok_model)

    @property
    def offered(self) -> list[Target]:
        """The models that clients may ask for, the default first."""
        default = self.default_model
        return [default, *[target for target in self._found(self.allowed_models) if target.id != default.id]]

    @property
    def fallbacks(self) -> list[Target]:
        """The models that are asked in turn when one fails."""
        return self._found(self.fallback_models)

    @property
    def memorisers(self) -> list[Target]:
        """The models that are named for summaries and titles."""
        return self._targets([name for name in (self.summary_model, self.title_model) if name is not None])

    @property
    def embedder(self) -> Target | None:
        """The model that makes embeddings; None where nobody wants any."""
        if self.embedding_model is None:
            return None
        if self.embedding_model == ECHO:
            raise ValueError("EMBEDDING_MODEL: echo makes no embeddings")
        if self.embedding_base_url is None:
            return self._directory().find(self.embedding_model)
        key = self.embedding_api_key
        return Target(
            self.embedding_model,
            CUSTOM,
            self.embedding_model,
            self.embedding_base_url,
            KEYLESS if key is None else key.get_secret_value(),
        )

    def _found(self, names: str | None) -> list[Target]:
        return self._targets(_split(names))

    def _targets(self, names: list[str]) -> list[Target]:
        default, directory = self.default_model, self._directory()
        return [default if name == default.id else directory.find(name) for name in names]

    def _directory(self) -> Directory:
        variables = {variable for preset in PRESETS.values() for variable in preset.variables}
        keys = {variable: getattr(self, variable.lower()) for variable in variables}
        addresses = {name: getattr(self, name.lower()) for name in ("BASE_URL", "OLLAMA_BASE_URL", "VLLM_BASE_URL")}
        return Directory(
            {variable: key.get_secret_value() for variable, key in keys.items() if key is not None},
            {name: address for name, address in addresses.items() if address is not None},
        )

    @cached_property
    def templates(self) -> Mapping[str, Template]:
        """The prompt templates, by name; read once, when the settings are checked."""
        if self.templates_dir is None:
            return {}
        from chat.templates import load_templates  # here, because who has none needs no Jinja2

        return load_templates(self.templates_dir)

    @model_validator(mode="after")
    def _templates_are_readable(self) -> Self:
        try:
            self.templates  # noqa: B018
        except ValueError as error:
            raise ValueError(f"TEMPLATES_DIR: {error}") from error
        return self

    @field_validator("mcp_servers")
    @classmethod
    def _usable_servers(cls, value: Path | None) -> Path | None:
        if value is not None:
            if find_spec("mcp") is None:
                raise ValueError("the package mcp is missing. Install it: ./scripts/install.sh requirements-mcp.txt")
            cls._servers(value)
        return value

    @property
    def server_configs(self) -> "list[ServerConfig]":
        """The MCP servers."""
        return [] if self.mcp_servers is None else self._servers(self.mcp_servers)

    @classmethod
    def _servers(cls, path: Path) -> "list[ServerConfig]":
        """What the file's placeholders stand for is looked up where settings are."""
        from mcp_tools.config import load_servers  # here, because who has none needs none of it

        written = DotEnvSettingsSource(cls, case_sensitive=True).env_vars
        return load_servers(path, {name: value for name, value in written.items() if value} | os.environ)

    @property
    def traces_endpoint(self) -> str | None:
        """The URL that traces are posted to; None where nobody wants them.

        https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp
        """
        if self.otel_exporter_otlp_traces_endpoint is None and self.otel_exporter_otlp_endpoint is not None:
            return f"{self.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
        return self.otel_exporter_otlp_traces_endpoint

    @property
    def database(self) -> Path | None:
        """SQLite's file; None where conversations are kept elsewhere."""
        if _POSTGRES.fullmatch(self.database_url):
            return None
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def place(self) -> Path | str:
        """SQLite's file or PostgreSQL's address."""
        return self.database or self.database_url

    @property
    def written(self) -> Mapping[str, str]:
        """What was set, as environment variables say it."""
        given = {name.upper(): getattr(self, name) for name in self.model_fields_set}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in given.items()
            if value is not None
        }

    @property
    def tool_modules(self) -> list[str]:
        return [name.strip() for name in (self.tools or "").split(",") if name.strip()]

    @property
    def origins(self) -> list[str]:
        return _split(self.allowed_origins)


def _split(names: str | None) -> list[str]:
    """What stands between the commas, each once."""
    return list(dict.fromkeys([name.strip() for name in (names or "").split(",") if name.strip()]))


def _networks_in(text: str) -> list[IPv4Network | IPv6Network]:
    return [] if text == "0" else [ip_network(network) for network in _split(text)]


def _json(kind: TypeAdapter[Any], value: str | None, use: str) -> str | None:
    """The value, if it is JSON of this kind; else ValueError says where it is not, and what to write."""
    try:
        kind.validate_json(value or "{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        wrong = f"{where}: {first['msg']}" if where else first["msg"]
        raise ValueError(f"{wrong}; {use}") from None
    return value


def load_settings(arguments: list[str] | None = None) -> Settings:
    """The settings, or the end of the process with one line that says what is wrong."""
    try:
        settings = Settings(_cli_parse_args=arguments)
        if settings.database is not None:
            settings.database.parent.mkdir(parents=True, exist_ok=True)
    except ValidationError as error:
        wrong = (
            ": ".join([*[str(step).upper() for step in e["loc"]], e["msg"].removeprefix("Value error, ")])
            for e in error.errors()
        )
        sys.exit("Wrong setting: " + "; ".join(wrong))
    except OSError as error:
        sys.exit(f"Wrong setting: DATABASE_URL: its folder cannot be made: {error.strerror}: {error.filename}")
    return settings
