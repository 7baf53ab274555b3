"""The process: what is tied to what, and the command line."""

import gc

if __name__ == "__main__":
    gc.disable()  # to walk through all that the imports make, again and again, takes a twentieth of the start

import asyncio
import logging
import logging.config
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from types import FrameType

import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Receive, Scope, Send
from uvicorn.supervisors import Multiprocess

from chat.context import Budgets
from chat.echo import EchoModel
from chat.engine import Engine, Timing
from chat.errors import StoreCorruptError, StoreNewerError, StoreUnavailableError
from chat.functions import load_tools
from chat.memory import MemoryPolicy
from chat.meter import NO_METER
from chat.policy import CrashRecovery, Policy
from chat.ports import ChatModel
from chat.providers import ECHO, Target, placeholders
from chat.routing import Router
from chat.tools import Toolbox
from chat.tracing import NO_TRACER, Tracer
from chat.usage import Price, Prices
from handlers import EXCEPTION_HANDLERS, ROUTES
from handlers.context import Service
from handlers.logs import log_config
from handlers.metrics import Metrics
from handlers.middleware import BodyLimitMiddleware, RequestMiddleware
from handlers.pulse import Pulse
from handlers.wire import lay_wire, rest_of
from settings import Settings, load_settings
from store.sqlite import SqliteStore

VERSION = "0.1.0"

LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?"

CLOSE_SECONDS = 5
"""What the server gives its connections when every stream has ended: only those of stalled readers are left."""

SEND_BUFFER = 64 * 1024
"""Bytes that the kernel takes on for one reader: by default a reader that stalls would absorb megabytes."""

OPEN_WAIT = 2.0
"""Seconds that the start waits for the database before it serves without, not ready, and goes on trying."""

OPEN_PAUSE = 1.0
"""Seconds between two such tries; each waits for SQLite's lock besides."""

COLLECT_EVERY = 10_000
"""Objects that are made, and not freed, between two looks of the garbage collector: Python's 700 are a few tokens."""

logger = logging.getLogger("parley")


def model_of(settings: Settings) -> Router:
    """The models that the settings name: a key or an endpoint makes the default a real one."""
    offered, fallbacks = settings.offered, settings.fallbacks
    if offered[0].provider == ECHO:
        logger.info("Model: echo, the built-in one. Set OPENAI_API_KEY, GROK_API_KEY or BASE_URL for a real one.")
    else:
        logger.info("Model: %s at %s", offered[0].id, offered[0].base_url)
    if any(target.provider != ECHO for target in (*offered, *fallbacks, *settings.memorisers)):
        import chat.model  # noqa: F401  # the SDK takes a second and 30 MB that echo does not need, and no request

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

    return Router(offered, fallbacks, connect, others=settings.memorisers, budgets=budgets_of(settings))


class _Application(Starlette):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lay_wire(scope, send)
        await super().__call__(scope, receive, send)
        if (rest := rest_of(scope)) is not None:
            await rest(receive)


def create_app(settings: Settings, *, model: ChatModel | None = None, alone: bool = False) -> Starlette:
    """The application. Nothing is opened before its lifespan begins. ``alone``: it has the process to itself."""
    tools, servers = with_servers(settings, tools_of(settings))
    pulse = Pulse(settings.ping_seconds, settings.send_timeout)
    metrics = metrics_of(settings, pulse)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        logging.config.dictConfig(log_config(settings.log_level))
        router = app.state.router = model_of(settings) if model is None else Router.alone(model, budgets_of(settings))
        router.connect()
        store = SqliteStore(settings.database, lease=settings.lease_seconds)
        try:
            async with tracer_of(settings) as tracer, _opened(store), servers():
                engine = app.state.engine = Engine(
                    store,
                    router,
                    policy_of(settings, prompt=tools.prompt),
                    timing_of(settings),
                    tools,
                    memory=memory_of(settings),
                    prices=prices_of(settings),
                    meter=metrics or NO_METER,
                    tracer=tracer,
                )
                async with engine.running():
                    with _drained_on_signals(engine, pulse, settings.drain_seconds):
                        if alone:
                            _spare_the_collector()
                        yield
        finally:
            await router.close()

    origins = settings.origins
    app = _Application(
        routes=ROUTES,
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
        middleware=[
            Middleware(
                CORSMiddleware,  # never with credentials: there are no cookies, and "*" would then reflect any origin
                allow_origins=origins,
                allow_origin_regex=None if origins else LOCAL_ORIGINS,
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=["*"],  # clients have headers of their own, such as X-Stainless-Lang
                expose_headers=[
                    "Idempotency-Replayed",
                    "Location",
                    "Preference-Applied",
                    "Retry-After",
                    "X-Request-Id",
                    "X-Run-Id",
                    "X-Session-Id",
                    "X-User-Id",
                ],
            ),
            Middleware(GZipMiddleware, compresslevel=5),
            Middleware(RequestMiddleware),
            Middleware(BodyLimitMiddleware, limit=settings.max_body_bytes),
        ],
    )
    app.state.service = Service(
        name=settings.service_name,
        version=VERSION,
        message_limit=settings.max_message_chars,
        pulse=pulse,
        metrics=metrics,
        templates=settings.templates,
        titles=settings.titles,
    )
    return app


def tools_of(settings: Settings) -> Toolbox:
    """The tools that the settings name, or the end of the process with one line that says what is wrong."""
    try:
        return load_tools(settings.tool_modules)
    except ValueError as error:
        sys.exit(f"Wrong setting: TOOLS: {error}")


def with_servers(settings: Settings, tools: Toolbox) -> tuple[Toolbox, Callable[[], AbstractAsyncContextManager[None]]]:
    """The tools and those of the MCP servers, and what keeps these connected."""
    configs = settings.server_configs
    if not configs:
        return tools, nullcontext
    from mcp_tools.servers import Servers  # here, because who has none needs no mcp

    servers = Servers(configs, taken=[spec.name for spec in tools.specs], version=VERSION)
    return tools.joined(servers), servers.running


def policy_of(settings: Settings, *, prompt: str | None = None) -> Policy:
    """``prompt``: the system prompt where none is set."""
    return Policy(
        system_prompt=settings.system_prompt or prompt,
        steps=settings.max_steps,
        run_seconds=settings.run_seconds,
        run_tokens=settings.max_run_tokens,
        budgets=budgets_of(settings),
        retries=settings.model_retries,
        answer_limit=settings.max_answer_chars,
        crash_recovery=CrashRecovery(settings.crash_recovery),
    )


def budgets_of(settings: Settings) -> Budgets:
    return Budgets(settings.context_tokens, settings.context_table, tuple(target.id for target in settings.fallbacks))


def memory_of(settings: Settings) -> MemoryPolicy:
    return MemoryPolicy(settings.summaries, settings.titles, settings.summary_model, settings.title_model)


def timing_of(settings: Settings) -> Timing:
    return Timing(lease=settings.lease_seconds, retention=settings.event_retention)


def prices_of(settings: Settings) -> Prices:
    return {
        model: Price(price.input, price.output, price.input if price.cached is None else price.cached)
        for model, price in settings.price_table.items()
    }


def metrics_of(settings: Settings, pulse: Pulse) -> Metrics | None:
    """With several workers a scrape meets any one of them, which says then which it is."""
    if not settings.metrics:
        return None
    return Metrics(lambda: len(pulse), worker=str(os.getpid()) if settings.workers > 1 else None)


def tracer_of(settings: Settings) -> AbstractAsyncContextManager[Tracer]:
    """Tracing where it is asked for and installed. An address that a whole cluster is given stops no service."""
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
        version=VERSION,
        targets=[*settings.memorisers, *settings.fallbacks, *settings.offered],
    )


def _spare_the_collector() -> None:
    """Keep what the start has made out of the garbage collector's sight.

    It stays as long as the process, and to walk through it takes 100 ms, in which no token is sent.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


@asynccontextmanager
async def _opened(store: SqliteStore) -> AsyncIterator[None]:
    """Open the store, or serve without it, not ready, until it can be opened."""
    opening = asyncio.create_task(_open(store))
    await asyncio.wait({opening}, timeout=OPEN_WAIT)
    try:
        yield
    finally:
        opening.cancel()
        await asyncio.wait({opening})
        await store.close()


async def _open(store: SqliteStore) -> None:
    while True:
        try:
            await store.open()
        except StoreNewerError:
            logger.critical("The database belongs to a later version of this service. Start that version, or a backup.")
            return
        except StoreUnavailableError:
            logger.error("The database cannot be opened; trying again.")
            await asyncio.sleep(OPEN_PAUSE)
        except StoreCorruptError:
            logger.critical("The database is damaged. It is left as it is: restore a backup, or try `.recover`.")
            return
        else:
            return


@contextmanager
def _drained_on_signals(engine: Engine, pulse: Pulse, seconds: float) -> Iterator[None]:
    """Drain first and let uvicorn stop then: it closes its door at once, and waits for the streams for ever.

    While the process drains, its clients still find it: their streams go on, new work gets a clear answer. A second
    signal goes to uvicorn as it is. https://github.com/encode/uvicorn/discussions/2257
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Callable[[int, FrameType | None], object]] = {}
    draining: list[asyncio.Task[None]] = []

    async def drain(number: int, stop: Callable[[int, FrameType | None], object]) -> None:
        try:
            await engine.drain(seconds)
        finally:
            pulse.stop()
            stop(number, None)

    def begin(number: int, stop: Callable[[int, FrameType | None], object]) -> None:
        logger.info("draining: %s", signal.Signals(number).name)
        draining.append(loop.create_task(drain(number, stop)))

    def on_signal(number: int, frame: FrameType | None) -> None:
        if draining:
            before[number](number, frame)
        else:
            loop.call_soon_threadsafe(begin, number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            handler = signal.getsignal(number)
            if isinstance(server := getattr(handler, "__self__", None), uvicorn.Server):
                server.config.timeout_graceful_shutdown = server.config.timeout_graceful_shutdown or CLOSE_SECONDS
            if callable(handler):
                before[number] = handler
                signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    gc.enable()
    settings = load_settings(sys.argv[1:])
    # Workers are processes of their own and read the environment.
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            os.environ[name.upper()] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    config = uvicorn.Config(
        "server:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=log_config(settings.log_level),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
    listener = config.bind_socket()
    # Accepted sockets inherit both. Without them a reader that stalls holds memory, and its socket, for ever.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.send_timeout * 1000))
    if settings.workers > 1:
        Multiprocess(config, sockets=[listener]).run()
    else:
        uvicorn.Server(config).run(sockets=[listener])


def __getattr__(name: str) -> Starlette:
    """``uvicorn server:app`` finds the application, made when it is asked for: importing this module does nothing."""
    if name == "app":
        return create_app(load_settings(), alone=True)
    raise AttributeError(name)


if __name__ == "__main__":
    main()
