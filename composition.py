"""The parts that the settings describe, for `server` to tie together. Nothing is opened here."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from importlib.util import find_spec
from typing import Literal

from chat.context import Budgets
from chat.echo import EchoModel
from chat.embeddings import Embedder
from chat.engine import Timing
from chat.functions import load_tools
from chat.intake import Intake
from chat.memory import MemoryPolicy
from chat.policy import CrashRecovery, Policy
from chat.ports import ChatModel
from chat.providers import ECHO, Target, placeholders
from chat.routing import Router
from chat.searching import SEARCH_TOOL
from chat.texts import without_password
from chat.tools import Toolbox
from chat.tracing import NO_TRACER, Tracer
from chat.usage import Price, Prices
from handlers.budgets import Budgets as TokenBudgets
from handlers.clients import Clients
from handlers.door import MOST_WAITING, Door
from handlers.guards import Jwt, Keys, Open, Ticketed
from handlers.identity import Guard
from handlers.limits import Caps, Limits
from handlers.metrics import Metrics
from handlers.pulse import Pulse
from handlers.rates import Rates
from handlers.sealing import Seals
from knowledge.reading import Reader
from settings import Settings
from store.sql import SqlStore
from store.sqlite import SqliteStore

logger = logging.getLogger("parley")


def model_of(settings: Settings) -> Router:
    """The models that the settings name: a key or an endpoint makes the default a real one."""
    offered, fallbacks = settings.offered, settings.fallbacks
    if offered[0].provider == ECHO:
        logger.info("Model: echo, the built-in one. Set OPENAI_API_KEY, GROK_API_KEY or BASE_URL for a real one.")
    else:
        logger.info("Model: %s at %s", offered[0].id, without_password(offered[0].base_url))
    real = any(target.provider != ECHO for target in (*offered, *fallbacks, *settings.memorisers))

    def connect(target: Target) -> ChatModel:
        if target.provider == ECHO:
            return EchoModel(settings.stream_delay)
        from chat.model import OpenAIModel

        return OpenAIModel(
            name=target.provider,
            base_url=target.base_url,
            api_key=target.api_key,
            connect_timeout=settings.connect_timeout,
            silence_timeout=settings.request_timeout,
            first_timeout=settings.first_token_timeout,
            placeholders=placeholders(target.base_url),
        )

    return Router(
        offered,
        fallbacks,
        connect,
        others=settings.memorisers,
        budgets=budgets_of(settings),
        prepare=_import_sdk if real else None,
    )


def embedder_of(settings: Settings) -> Embedder | None:
    """The model that makes embeddings. They are kept under its name, and that of their dimensions where it is set."""
    target = settings.embedder
    if target is None:
        return None
    logger.info("Embeddings: %s at %s", target.id, without_password(target.base_url))
    from chat.model import OpenAIEmbedder  # here, because who has none may need no SDK

    dimensions = settings.embedding_dimensions
    return OpenAIEmbedder(
        name=target.id if dimensions is None else f"{target.id}, {dimensions} dimensions",
        base_url=target.base_url,
        api_key=target.api_key,
        model=target.name,
        dimensions=dimensions,
        connect_timeout=settings.connect_timeout,
    )


def _import_sdk() -> None:
    """It takes half a second and 30 MB that echo does not need; and for a stored answer nobody has to wait for it."""
    import chat.model  # noqa: F401


def store_of(settings: Settings) -> SqlStore:
    """The store that DATABASE_URL names."""
    if settings.database is not None:
        return SqliteStore(settings.database, lease=settings.lease_seconds, near=settings.embedding_model is not None)
    from store.postgres import PostgresStore  # here, because who has a file needs no asyncpg

    return PostgresStore(settings.database_url, lease=settings.lease_seconds)


def tools_of(settings: Settings) -> Toolbox:
    """The tools that the settings name, or the end of the process with one line that says what is wrong."""
    try:
        return load_tools(settings.tool_modules)
    except ValueError as error:
        sys.exit(f"Wrong setting: TOOLS: {error}")


def with_servers(
    settings: Settings, tools: Toolbox, *, version: str
) -> tuple[Toolbox, Callable[[], AbstractAsyncContextManager[None]]]:
    """The tools and those of the MCP servers, and what keeps these connected. ``version``: of this service."""
    configs = settings.server_configs
    if not configs:
        return tools, nullcontext
    from mcp_tools.servers import Servers  # here, because who has none needs no mcp

    servers = Servers(configs, taken={SEARCH_TOOL, *(spec.name for spec in tools.specs)}, version=version)
    return tools.joined(servers), servers.running


def policy_of(settings: Settings, *, prompt: str | None = None) -> Policy:
    """``prompt``: the system prompt where none is set."""
    return Policy(
        system_prompt=settings.system_prompt or prompt,
        steps=settings.max_steps,
        run_seconds=settings.run_seconds,
        run_tokens=settings.max_run_tokens,
        budgets=budgets_of(settings),
        passage_tokens=settings.passage_tokens,
        search_documents=settings.search_documents,
        retries=settings.model_retries,
        answer_limit=settings.max_answer_chars,
        crash_recovery=CrashRecovery(settings.crash_recovery),
    )


def budgets_of(settings: Settings) -> Budgets:
    return Budgets(settings.context_tokens, settings.context_table, tuple(target.id for target in settings.fallbacks))


def memory_of(settings: Settings) -> MemoryPolicy:
    return MemoryPolicy(settings.summaries, settings.titles, settings.summary_model, settings.title_model)


def intake_of(settings: Settings) -> Intake:
    return Intake(Reader(), settings.max_document_bytes, settings.max_user_documents)


def timing_of(settings: Settings) -> Timing:
    return Timing(lease=settings.lease_seconds, retention=settings.event_retention, history=settings.history_retention)


def prices_of(settings: Settings) -> Prices:
    return {
        model: Price(price.input, price.output, price.input if price.cached is None else price.cached)
        for model, price in settings.price_table.items()
    }


def door_of(settings: Settings) -> Door:
    """Connections that wait get at most a quarter of the descriptors that this process may have."""
    return Door(settings.header_seconds, settings.body_seconds, min(MOST_WAITING, descriptors() // 4))


def descriptors() -> int:
    """How many files and sockets this process may have open. Asks for all that it can get: many shells give 1,024."""
    if sys.platform == "win32":
        return 4 * MOST_WAITING
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS says that there is no limit, and has one
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 4 * MOST_WAITING if hard == resource.RLIM_INFINITY else hard


def http_of() -> type[asyncio.Protocol] | Literal["auto"]:
    """uvicorn's connections, with deadlines where there is httptools, which Windows has to do without."""
    if find_spec("httptools") is None:
        return "auto"
    from handlers.connections import Connection

    return Connection


def limits_of(settings: Settings, clock: Callable[[], float]) -> Limits:
    """``clock``: seconds since 1970."""
    return Limits(
        Clients(settings.unlimited_networks),
        Rates("requests", settings.request_rate, clock),
        Rates("runs", settings.run_rate, clock),
        Rates("anonymous", settings.anonymous_rate, clock),
        Rates("wrong-keys", settings.wrong_key_rate, clock),
        Caps(
            runs=settings.max_runs,
            runs_each=settings.max_client_runs,
            streams=settings.max_streams,
            streams_each=settings.max_client_streams,
            replays=settings.max_replays,
            replays_each=settings.max_client_replays,
            followers=settings.max_followers,
        ),
        TokenBudgets(settings.daily_tokens, clock),
    )


def guard_of(settings: Settings, seals: Seals) -> Guard:
    """What tells who asks."""
    if settings.auth == "none":
        return Open()
    if settings.auth == "keys":
        return Ticketed(Keys(), seals)
    from handlers.tokens import KeySet, Secret, Terms, Tokens  # here, because who has no tokens needs no PyJWT

    secret, url = settings.jwt_secret, settings.jwt_jwks_url
    source = KeySet(url) if url is not None else Secret(secret.get_secret_value() if secret else "")
    tokens = Tokens(source, Terms(settings.pinned_algorithms, settings.jwt_issuer, settings.jwt_audience))
    return Ticketed(Jwt(tokens, Keys(), seals, anonymous=settings.anonymous_users), seals)


def metrics_of(settings: Settings, pulse: Pulse) -> Metrics | None:
    """With several workers a scrape meets any one of them, which says then which it is."""
    if not settings.metrics:
        return None
    return Metrics(lambda: len(pulse), worker=str(os.getpid()) if settings.workers > 1 else None)


def tracer_of(settings: Settings, *, version: str) -> AbstractAsyncContextManager[Tracer]:
    """Tracing where it is asked for and installed. An address that a whole cluster is given stops no service.

    ``version``: of this service.
    """
    endpoint, headers = settings.traces_endpoint, settings.otel_exporter_otlp_headers
    if endpoint is None:
        return nullcontext(NO_TRACER)
    try:
        from handlers.tracing import exported  # here, because who traces nothing needs no OpenTelemetry
    except ModuleNotFoundError as error:
        logger.warning("No traces: %s is missing. Install it: ./scripts/install.sh requirements-otel.txt", error.name)
        return nullcontext(NO_TRACER)
    return exported(
        endpoint,
        headers.get_secret_value() if headers else "",
        service=settings.service_name,
        version=version,
        targets=[*settings.memorisers, *settings.fallbacks, *settings.offered],
    )
