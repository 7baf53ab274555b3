"""What a handler finds around its request."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request

from chat.engine import Engine
from chat.prompts import Template
from chat.routing import Router
from handlers.metrics import Metrics
from handlers.pulse import Pulse

_request_id: ContextVar[str] = ContextVar("request_id", default="-")


@dataclass(frozen=True, slots=True)
class Service:
    """What the handlers know of the process they run in. ``message_limit`` is in characters.

    ``metrics`` is None where they are switched off. ``titles``: a model gives sessions their titles.
    """

    name: str
    version: str
    message_limit: int
    pulse: Pulse
    metrics: Metrics | None = None
    templates: Mapping[str, Template] = field(default_factory=dict)
    titles: bool = False


def engine_of(request: Request) -> Engine:
    return cast(Engine, request.app.state.engine)


def router_of(request: Request) -> Router:
    return cast(Router, request.app.state.router)


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def request_id() -> str:
    """The id of the request that is being answered, ``-`` outside of one."""
    return _request_id.get()


def set_request_id(value: str) -> None:
    _request_id.set(value)
