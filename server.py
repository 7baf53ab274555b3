"""The process: what is tied to what, and the command line."""

import gc

if __name__ == "__main__":
    gc.disable()  # to walk through all that the imports make, again and again, takes a twentieth of the start

import asyncio
import logging
import logging.config
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Receive, Scope, Send
from uvicorn.supervisors import Multiprocess

from chat.engine import Engine
from chat.errors import StoreCorruptError, StoreNewerError, StoreUnavailableError
from chat.intake import Intake
from chat.meter import NO_METER
from chat.ports import ChatModel
from chat.routing import Router
from composition import (
    budgets_of,
    door_of,
    embedder_of,
    guard_of,
    http_of,
    intake_of,
    limits_of,
    memory_of,
    metrics_of,
    model_of,
    policy_of,
    prices_of,
    store_of,
    timing_of,
    tools_of,
    tracer_of,
    with_servers,
)
from handlers import EXCEPTION_HANDLERS, ROUTES
from handlers.chaos import ChaosMiddleware
from handlers.context import Service
from handlers.door import PLACE
from handlers.headers import guarded
from handlers.limits import LimitsMiddleware
from handlers.logs import log_config, log_loop_errors
from handlers.middleware import BodyLimitMiddleware, IdentityMiddleware, RequestMiddleware
from handlers.origins import OriginMiddleware
from handlers.pulse import Pulse
from handlers.sealing import Seals
from handlers.wire import lay_wire, rest_of
from settings import Settings, load_settings
from store.sql import SqlStore

VERSION = "0.1.0"

OPEN_FILES = Path("/dev/fd")
"""A file for each descriptor that this process has, on Linux and macOS."""

STDERR = 2

LOOPBACK = ("127.0.0.1", "::1", "localhost")

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


class _Application(Starlette):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = lay_wire(scope, send)
        try:
            await super().__call__(scope, receive, guarded(send))  # outside of all that may answer
            if (rest := rest_of(scope)) is not None:
                await rest(receive)
        finally:
            wire.over()


def create_app(
    settings: Settings, *, model: ChatModel | None = None, alone: bool = False, clock: Callable[[], float] = time.time
) -> Starlette:
    """The application. Nothing is opened before its lifespan begins. ``alone``: it has the process to itself.

    ``clock``: of the limits, in seconds since 1970.
    """
    limits = limits_of(settings, clock)
    tools, servers = with_servers(settings, tools_of(settings), version=VERSION)
    pulse = Pulse(settings.ping_seconds, settings.send_timeout)
    metrics = metrics_of(settings, pulse)
    seals = Seals(settings.run_seconds)
    intake = intake_of(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[Mapping[str, object]]:
        logging.config.dictConfig(log_config(settings.log_level))
        asyncio.get_running_loop().set_exception_handler(log_loop_errors)
        if alone:
            _keep_descriptors()
        warn_of_chaos(settings)
        warn_of_strangers(settings)
        router = app.state.router = model_of(settings) if model is None else Router.alone(model, budgets_of(settings))
        connecting = router.connect()
        embedder = embedder_of(settings)
        store = store_of(settings)
        try:
            async with tracer_of(settings, version=VERSION) as tracer, _opened(store), servers():
                engine = app.state.engine = Engine(
                    store,
                    router,
                    policy_of(settings, prompt=tools.prompt),
                    timing_of(settings),
                    tools,
                    memory=memory_of(settings),
                    prices=prices_of(settings),
                    intake=intake,
                    meter=metrics or NO_METER,
                    tracer=tracer,
                    embedder=embedder,
                )
                async with engine.running():
                    with _drained_on_signals(engine, pulse, settings.drain_seconds):
                        if alone:
                            connecting.add_done_callback(_spare_the_collector)
                        with closing(door_of(settings)) as door:
                            yield {PLACE: door}
        finally:
            await router.close()
            if embedder is not None:
                await embedder.close()

    origins = settings.origins
    app = _Application(
        routes=ROUTES,
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
        middleware=[
            Middleware(
                CORSMiddleware,  # "*" with credentials would reflect any origin: the settings refuse it
                allow_origins=origins,
                allow_credentials=settings.allow_credentials,
                allow_origin_regex=None if origins else LOCAL_ORIGINS,
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=["*"],  # clients have headers of their own, such as X-Stainless-Lang
                expose_headers=[
                    "Idempotency-Replayed",
                    "Location",
                    "Preference-Applied",
                    "RateLimit",
                    "RateLimit-Policy",
                    "Retry-After",
                    "X-Request-Id",
                    "X-Run-Id",
                    "X-Session-Id",
                    "X-User-Id",
                ],
            ),
            Middleware(GZipMiddleware, compresslevel=5),
            Middleware(RequestMiddleware),
            Middleware(OriginMiddleware, allowed=_pages_of(origins)),
            Middleware(BodyLimitMiddleware, limit=settings.max_body_bytes, uploads=settings.max_upload_bytes),
            Middleware(IdentityMiddleware, guard=guard_of(settings, seals), limits=limits),
            Middleware(LimitsMiddleware, limits=limits),
            Middleware(ChaosMiddleware, allowed=settings.chaos, longest=settings.send_timeout),
        ],
    )
    app.state.limits = limits
    app.state.seals = seals
    app.state.service = Service(
        name=settings.service_name,
        version=VERSION,
        message_limit=settings.max_message_chars,
        body_limit=settings.max_body_bytes,
        intake=intake,
        files_each=settings.max_import_files,
        ping_seconds=settings.ping_seconds,
        pulse=pulse,
        metrics=metrics,
        templates=settings.templates,
        titles=settings.titles,
        chaos=settings.chaos,
        anonymous=settings.auth == "jwt" and settings.anonymous_users,
    )
    return app


def _pages_of(origins: Sequence[str]) -> Callable[[str], bool]:
    """Whether an origin is one of those that CORS lets in."""
    if not origins:
        return lambda origin: re.fullmatch(LOCAL_ORIGINS, origin) is not None
    return lambda origin: "*" in origins or origin in origins


def warn_of_chaos(settings: Settings) -> None:
    """A container listens on all addresses and may yet be reached from this machine only: so it is no wrong setting."""
    if settings.chaos:
        where = "" if settings.host in LOOPBACK else f" It listens on {settings.host}, which others may reach."
        logger.warning("CHAOS is on: whoever reaches this service can end its process, with ?chaos=kill@1.%s", where)


def warn_of_strangers(settings: Settings) -> None:
    """It may well be that only a trusted server reaches it; but nobody should find out later that others do, too."""
    if settings.auth == "none" and settings.host not in LOOPBACK:
        logger.warning(
            "NOBODY IS ASKED WHO THEY ARE: AUTH is none, and this listens on %s. Whoever reaches it can read and "
            "delete every conversation and spend on every model. Set AUTH=keys or AUTH=jwt: see docs/security.md.",
            settings.host,
        )
    if settings.auth == "none" and "*" in settings.origins:
        logger.warning(
            "ANY PAGE MAY ASK: ALLOWED_ORIGINS is *, and AUTH is none. Whatever page is opened in a browser that can "
            "reach this service may read its conversations. Name your pages' origins, or set AUTH: docs/security.md."
        )


def _keep_descriptors() -> None:
    """Let no process that this one starts inherit what it has open.

    uvicorn's listening socket is inheritable, and uvloop closes nothing in a child: a tool's server, or a document's
    reader, that outlived this process would hold its port.
    """
    if OPEN_FILES.is_dir():
        for descriptor in [int(file.name) for file in OPEN_FILES.iterdir()]:
            if descriptor > STDERR:
                with suppress(OSError):  # it was the listing's own
                    os.set_inheritable(descriptor, False)  # noqa: FBT003  # it has no name


def _spare_the_collector(_: object) -> None:
    """Keep what the start has made out of the garbage collector's sight.

    It stays as long as the process, and to walk through it takes 100 ms, in which no token is sent.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


@asynccontextmanager
async def _opened(store: SqlStore) -> AsyncIterator[None]:
    """Open the store, or serve without it, not ready, until it can be opened."""
    opening = asyncio.create_task(_open(store))
    await asyncio.wait({opening}, timeout=OPEN_WAIT)
    try:
        yield
    finally:
        opening.cancel()
        await asyncio.wait({opening})
        await store.close()


async def _open(store: SqlStore) -> None:
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


def _shelf(arguments: list[str]) -> tuple[SqlStore, Intake]:
    """Where documents go, and how they are taken in."""
    settings = load_settings(arguments)
    return store_of(settings), intake_of(settings)


def main() -> None:
    """Serve until SIGTERM or SIGINT; or be one of the other commands, of which the service needs nothing."""
    gc.enable()
    if sys.argv[1:2] == ["doctor"]:
        from doctor.command import main as doctor

        sys.exit(doctor(sys.argv[2:]))
    if sys.argv[1:2] in (["export"], ["import"]):
        from store.transfer_command import main as transfer

        sys.exit(transfer(sys.argv[1:], lambda arguments: load_settings(arguments).place, VERSION))
    if sys.argv[1:2] == ["keys"]:
        from store.keys_command import main as keys

        sys.exit(keys(sys.argv[2:], lambda arguments: load_settings(arguments).place))
    if sys.argv[1:2] == ["import-docs"]:
        from knowledge.folder_command import main as import_docs

        sys.exit(import_docs(sys.argv[2:], _shelf))
    settings = load_settings(sys.argv[1:])
    os.environ.update(settings.written)  # workers are processes of their own and read the environment
    config = uvicorn.Config(
        "server:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=http_of(),
        log_config=log_config(settings.log_level),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        forwarded_allow_ips=settings.forwarded_allow_ips,
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
