"""The process: settings, what is tied to what, and the command line."""

import asyncio
import logging
import logging.config
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import uvicorn
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pythonjsonlogger.core import RESERVED_ATTRS
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from uvicorn.supervisors import Multiprocess

from chat.echo import EchoModel
from chat.engine import Engine, Timing
from chat.errors import StoreCorruptError, StoreUnavailableError
from chat.generation import CrashRecovery, Policy
from chat.ports import ChatModel
from handlers import EXCEPTION_HANDLERS, ROUTES
from handlers.context import Service, request_id
from handlers.middleware import BodyLimitMiddleware, RequestMiddleware, WireMiddleware
from handlers.pulse import Pulse
from store.sqlite import SqliteStore

VERSION = "0.1.0"

XAI = "https://api.x.ai/v1"

LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?"

CLOSE_SECONDS = 5
"""What the server gives its connections when every stream has ended: only those of stalled readers are left."""

SEND_BUFFER = 64 * 1024
"""Bytes that the kernel takes on for one reader: by default a reader that stalls would absorb megabytes."""

OPEN_WAIT = 2.0
"""Seconds that the start waits for the database before it serves without, not ready, and goes on trying."""

OPEN_PAUSE = 1.0
"""Seconds between two such tries; each waits for SQLite's lock besides."""

logger = logging.getLogger("parley")


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
    grok_api_key: SecretStr | None = Field(None, description="Key for xAI, used when no other is set.")
    grok_model: str = Field("grok-3-mini-latest", description="Model to ask at xAI.")
    system_prompt: str | None = Field(None, description="System message sent before every conversation.")
    request_timeout: float = Field(30, gt=0, description="Longest silence of the model, in seconds.")
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
    context_tokens: int = Field(16_000, ge=1, description="Budget of the history sent to the model.")
    max_message_chars: int = Field(100_000, ge=1, description="Longest message.")
    max_answer_chars: int = Field(1_000_000, ge=1, description="Longest answer; it is cut and marked as failed.")
    max_body_bytes: int = Field(2_000_000, ge=1, description="Largest request body.")
    ping_seconds: float = Field(15, gt=0, description="Pause between the comments that keep a stream open.")
    send_timeout: float = Field(60, gt=0, description="Seconds after which a reader that stalls is dropped.")

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

    @field_validator("base_url")
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

    @property
    def database(self) -> Path:
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def origins(self) -> list[str]:
        return [origin.strip() for origin in (self.allowed_origins or "").split(",") if origin.strip()]


def model_of(settings: Settings) -> ChatModel:
    """The model that the settings name: a key or an endpoint makes it a real one."""
    name, key, base_url = settings.model_name or "gpt-4o-mini", settings.openai_api_key, settings.base_url
    if key is None and base_url is None and settings.grok_api_key is not None:
        name, key, base_url = settings.grok_model, settings.grok_api_key, XAI
    if settings.model_name == "echo" or (key is None and base_url is None):
        logger.info("Model: echo, the built-in one. Set OPENAI_API_KEY, GROK_API_KEY or BASE_URL for a real one.")
        return EchoModel(settings.stream_delay)
    from chat.model import OpenAIModel  # here, because the SDK takes a second and 30 MB that echo does not need

    base_url = base_url or "https://api.openai.com/v1"
    logger.info("Model: %s at %s", name, base_url)
    return OpenAIModel(
        name=name,
        base_url=base_url,
        api_key=key.get_secret_value() if key else "none",
        connect_timeout=settings.connect_timeout,
        silence_timeout=settings.request_timeout,
    )


def create_app(settings: Settings, *, model: ChatModel | None = None) -> Starlette:
    """The application. Nothing is opened before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        logging.config.dictConfig(log_config(settings.log_level))
        chosen = model or model_of(settings)
        store = SqliteStore(settings.database, lease=settings.lease_seconds)
        engine = app.state.engine = Engine(store, chosen, policy_of(settings), timing_of(settings))
        try:
            async with _opened(store), engine.running():
                with _drained_on_signals(engine, settings.drain_seconds):
                    yield
        finally:
            await chosen.close()

    origins = settings.origins
    app = Starlette(
        routes=ROUTES,
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
        middleware=[
            Middleware(WireMiddleware),
            Middleware(
                CORSMiddleware,  # never with credentials: there are no cookies, and "*" would then reflect any origin
                allow_origins=origins,
                allow_origin_regex=None if origins else LOCAL_ORIGINS,
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=[
                    "Authorization",
                    "Cache-Control",
                    "Idempotency-Key",
                    "Last-Event-ID",
                    "Prefer",
                    "X-Request-Id",
                ],
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
        pulse=Pulse(settings.ping_seconds, settings.send_timeout),
    )
    return app


def policy_of(settings: Settings) -> Policy:
    return Policy(
        system_prompt=settings.system_prompt,
        context_tokens=settings.context_tokens,
        retries=settings.model_retries,
        answer_limit=settings.max_answer_chars,
        crash_recovery=CrashRecovery(settings.crash_recovery),
    )


def timing_of(settings: Settings) -> Timing:
    return Timing(lease=settings.lease_seconds, retention=settings.event_retention)


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
        except StoreUnavailableError:
            logger.error("The database cannot be opened; trying again.")
            await asyncio.sleep(OPEN_PAUSE)
        except StoreCorruptError:
            logger.critical("The database is damaged. It is left as it is: restore a backup, or try `.recover`.")
            return
        else:
            return


@contextmanager
def _drained_on_signals(engine: Engine, seconds: float) -> Iterator[None]:
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


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id()
        return True


def log_config(level: str) -> dict[str, Any]:
    """JSON lines on stderr. Libraries that write bodies or tokens at DEBUG are kept from it."""
    quiet = ("sse_starlette", "aiosqlite", "openai", "httpx2", "httpcore2", "aiohttp", "asyncio", "uvicorn.access")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": _RequestIdFilter}},
        "formatters": {
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
                "reserved_attrs": [*RESERVED_ATTRS, "color_message"],
                "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["request"]}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {name: {"level": "WARNING"} for name in quiet} | {"uvicorn": {"handlers": [], "propagate": True}},
    }


def load_settings(arguments: list[str] | None = None) -> Settings:
    """The settings, or the end of the process with one line that says what is wrong."""
    try:
        settings = Settings(_cli_parse_args=arguments)
        settings.database.parent.mkdir(parents=True, exist_ok=True)
    except ValidationError as error:
        wrong = (
            f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        )
        sys.exit("Wrong setting: " + "; ".join(wrong))
    except OSError as error:
        sys.exit(f"Wrong setting: DATABASE_URL: its folder cannot be made: {error.strerror}: {error.filename}")
    return settings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
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
        return create_app(load_settings())
    raise AttributeError(name)


if __name__ == "__main__":
    main()
