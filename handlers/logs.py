"""The log: JSON lines, each with the request that it belongs to, and none with a key or what somebody has said."""

import asyncio
import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, TypeAlias

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from handlers.context import request_id

OURS = (
    "parley", "chat", "doctor", "handlers", "knowledge", "mcp_tools", "server", "composition", "settings", "store",
)  # fmt: skip

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_CODES = ("sqlite_errorname", "sqlstate", "errno")
_CODE = re.compile(r"[A-Z0-9_]{1,40}")

logger = logging.getLogger("parley")


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id()
        return True


class Formatter(JsonFormatter):
    """Tells of exceptions where they were raised, line by line, and of what class they are, but not their words.

    Those quote what could not be handled: a row of the database, the input that did not fit, a tool's arguments.
    """

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802  # logging's own
        return "".join(_told(ei[1])) if ei[1] is not None else ""


def _told(error: BaseException) -> Iterator[str]:
    """As Python prints it: first what it came from, last what was raised."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _told(earlier)
        yield "\nthen\n\n"
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _told(part)
            yield "\namong\n\n"
    yield from traceback.format_tb(error.__traceback__)
    codes = [str(getattr(error, name, None)) for name in _CODES]
    known = [code for code in codes if code != "None" and _CODE.fullmatch(code)]
    yield f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.") + "".join(
        f" {code}" for code in known
    )


def log_loop_errors(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """An event loop's exception handler. asyncio's own writes down the task or call, with all that it was given."""
    logger.error(context["message"].partition("(")[0], exc_info=context.get("exception"))


def log_config(level: str) -> dict[str, Any]:
    """JSON lines on stderr.

    ``level`` is that of our own lines. Those of libraries begin with INFO, whatever they may come to say at DEBUG; and
    some that write bodies or addresses, mcp at any level, are kept from that, too.
    """
    servers = ("sse_starlette", "aiosqlite", "asyncio", "uvicorn.access", "chatkit")
    clients = ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "urllib3")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": _RequestIdFilter}},
        "formatters": {
            "json": {
                "()": Formatter,
                "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
                "reserved_attrs": [*RESERVED_ATTRS, "color_message"],
                "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["request"]}},
        "root": {"level": "INFO" if level == "DEBUG" else level, "handlers": ["stderr"]},
        "loggers": {name: {"level": "WARNING"} for name in (*servers, *clients)}
        | {name: {"level": level} for name in OURS}
        | {name: {"level": "CRITICAL"} for name in ("mcp", "client")}  # the latter is mcp's, too
        | {"uvicorn": {"handlers": [], "propagate": True}},
    }
