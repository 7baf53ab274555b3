"""The log: JSON lines, each with the request that it belongs to."""

import logging
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS

from handlers.context import request_id


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id()
        return True


def log_config(level: str) -> dict[str, Any]:
    """JSON lines on stderr. Libraries that write bodies or tokens, mcp at any level, are kept from it."""
    servers = ("sse_starlette", "aiosqlite", "asyncio", "uvicorn.access")
    clients = ("openai", "httpx2", "httpcore2", "aiohttp", "urllib3")
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
        "loggers": {name: {"level": "WARNING"} for name in (*servers, *clients)}
        | {name: {"level": "CRITICAL"} for name in ("mcp", "client")}  # the latter is mcp's, too
        | {"uvicorn": {"handlers": [], "propagate": True}},
    }
