"""What a handler finds around its request."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from chat.engine import Engine

_request_id: ContextVar[str] = ContextVar("request_id", default="-")


@dataclass(frozen=True, slots=True)
class Service:
    """What the handlers know of the process they run in.

    ``message_limit`` is in characters; ``ping`` and ``send_timeout`` are seconds.
    """

    name: str
    version: str
    message_limit: int
    ping: float
    send_timeout: float


def engine_of(request: Request) -> Engine:
    return cast(Engine, request.app.state.engine)


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def request_id() -> str:
    """The id of the request that is being answered, ``-`` outside of one."""
    return _request_id.get()


def set_request_id(value: str) -> None:
    _request_id.set(value)
