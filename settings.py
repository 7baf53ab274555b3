"""What can be set, where it is read from, and what is wrong with it."""

import os
import re
import sys
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from importlib.util import find_spec
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
from chat.providers import PRESETS, Directory, Target

if TYPE_CHECKING:
    from mcp_tools.config import ServerConfig

HIGHEST_PRICE = 1_000_000
"""Dollars for a million tokens, a dollar each: what is more was given for one token, or in another currency."""


MOST_TOKENS = 10**9
"""Of a context: far above any model's, and yet a number of bytes that every store can count."""


class ModelPrice(BaseModel):
    """Dollars for a million tokens. ``cached``: of input that the upstream had read before; else as all input."""

    model_config = ConfigDict(extra="forbid")

    input: Decimal = Field(ge=0, le=HIGHEST_PRICE)
    output: Decimal = Field(ge=0, le=HIGHEST_PRICE)
    cached: Decimal | None = Field(None, ge=0, le=HIGHEST_PRICE)


_HEADER = re.compile(r"[\w.!#$%&'*+|~^`-]+=[!#-+\--:<-\[\]-~ ]*", re.ASCII)
"""A name and a value without quotes, commas, semicolons and backslashes: https://www.w3.org/TR/baggage/."""

_PRICES = TypeAdapter(dict[str, ModelPrice])

_TOKENS = TypeAdapter(dict[str, Annotated[int, Field(ge=1, le=MOST_TOKENS)]])


class Settings(BaseSettings):
    """Settings come from the command line, the environment and .env, in this order."""

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
    database_url: str = Field("sqlite:///./data/parley.db", description="Where conversations are kept.")
    openai_api_key: SecretStr | None = Field(None, description="Key of the OpenAI-compatible endpoint.")
    base_url: str | None = Field(None, description="OpenAI-compatible endpoint; default OpenAI's own.")
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
    ollama_base_url: str = Field("http://localhost:11434/v1", description="Where `ollama/...` is.")
    vllm_base_url: str = Field("http://localhost:8000/v1", description="Where `vllm/...` is.")
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
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    crash_recovery: Literal["continue", "interrupt"] = Field(
        "continue", description="What becomes of a half-shown answer when its process died."
    )
    drain_seconds: float = Field(20, ge=0, description="Seconds that running answers get when the process stops.")
    lease_seconds: float = Field(10, ge=0.3, description="Silence after which a frozen process loses its runs.")
    event_retention: float = Field(86_400, ge=0, description="Seconds that a finished run's events are kept.")
    tools: str | None = Field(None, description="Modules whose tools the model may call, by commas.")
    mcp_servers: Path | None = Field(None, description="File that lists MCP servers whose tools the model may call.")
    max_steps: int = Field(8, ge=1, le=100, description="How often the model is asked in one run that calls tools.")
    run_seconds: float = Field(600, gt=0, description="Seconds that a run may take in all, its tools included.")
    max_run_tokens: int = Field(1_000_000, ge=1, description="Tokens that a run may use in all, in and out.")
    context_tokens: int = Field(16_000, ge=1, le=MOST_TOKENS, description="Budget of the history sent to the model.")
    model_context_tokens: str | None = Field(
        None, description="The same of single models, in JSON: see docs/models-and-tools.md."
    )
    summaries: bool = Field(default=True, description="Whether what does not fit is summarised for the model.")
    summary_model: str | None = Field(None, description="Model that summarises; default the one that answered.")
    titles: bool = Field(default=False, description="Whether sessions without a title are given one by a model.")
    title_model: str | None = Field(None, description="Model that gives titles; default the one that answered.")
    max_message_chars: int = Field(100_000, ge=1, description="Longest message.")
    max_answer_chars: int = Field(1_000_000, ge=1, description="Longest answer; it is cut and marked as failed.")
    max_body_bytes: int = Field(2_000_000, ge=1, description="Largest request body.")
    ping_seconds: float = Field(15, gt=0, description="Pause between the comments that keep a stream open.")
    send_timeout: float = Field(60, gt=0, description="Seconds after which a reader that stalls is dropped.")
    prices: str | None = Field(None, description="What models cost, in JSON: see docs/observing.md.")
    metrics: bool = Field(default=True, description="Whether /metrics is there.")
    otel_exporter_otlp_endpoint: str | None = Field(
        None, description="Where traces go by OTLP over HTTP: see docs/observing.md."
    )
    otel_exporter_otlp_traces_endpoint: str | None = Field(
        None, description="The same as a whole URL, to which no `/v1/traces` is added."
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(None, description="Headers for it: `name=value`, by commas.")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if not re.fullmatch(r"sqlite:///[^?]+", value) or value.endswith(("/", ":memory:")):
            raise ValueError("use sqlite:///relative/path.db or sqlite:////absolute/path.db")
        return value

    @field_validator(
        "base_url",
        "ollama_base_url",
        "vllm_base_url",
        "otel_exporter_otlp_endpoint",
        "otel_exporter_otlp_traces_endpoint",
    )
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", value):
            raise ValueError("use http:// or https:// and a host")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: str | None) -> str | None:
        for origin in (value or "*").split(","):
            if origin.strip() != "*" and not re.fullmatch(r"https?://[^/\s]+", origin.strip()):
                raise ValueError("use origins such as https://chat.example.org, without a path, or *")
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

    @property
    def price_table(self) -> Mapping[str, ModelPrice]:
        return _PRICES.validate_json(self.prices or "{}")

    @property
    def context_table(self) -> Mapping[str, int]:
        return _TOKENS.validate_json(self.model_context_tokens or "{}")

    @model_validator(mode="after")
    def _models_have_keys(self) -> Self:
        for name in ("default_model", "offered", "fallbacks", "memorisers"):
            getattr(self, name)
        return self

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
    def database(self) -> Path:
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def tool_modules(self) -> list[str]:
        return [name.strip() for name in (self.tools or "").split(",") if name.strip()]

    @property
    def origins(self) -> list[str]:
        return _split(self.allowed_origins)


def _split(names: str | None) -> list[str]:
    """What stands between the commas, each once."""
    return list(dict.fromkeys([name.strip() for name in (names or "").split(",") if name.strip()]))


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
