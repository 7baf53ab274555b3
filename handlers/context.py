"""What a handler finds around its request."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request
from starlette.types import Scope

from chat.engine import Engine
from chat.intake import Intake
from chat.ownership import UserEngine
from chat.prompts import Template
from chat.routing import Router
from handlers.identity import identity_of
from handlers.metrics import Metrics
from handlers.pulse import Pulse

_request_id: ContextVar[str] = ContextVar("request_id", default="-")


@dataclass(frozen=True, slots=True)
class Service:
    """What the handlers know of the process they run in. ``message_limit`` is in characters, ``body_limit`` in bytes.

    ``metrics`` is None where they are switched off. ``titles``: a model gives sessions their titles. ``chaos``:
    streams break to order. ``anonymous``: who has no token is given one. ``intake`` takes documents in,
    ``files_each`` at a time at most.
    """

    name: str
    version: str
    message_limit: int
    body_limit: int
    ping_seconds: float
    pulse: Pulse
    metrics: Metrics | None = None
    templates: Mapping[str, Template] = field(default_factory=dict)
    titles: bool = False
    chaos: bool = False
    intake: Intake = field(kw_only=True)
    files_each: int = field(kw_only=True)
    anonymous: bool = False


def engine_of(request: Request) -> UserEngine:
    """The engine as who asks may use it."""
    return UserEngine(cast(Engine, request.app.state.engine), identity_of(request).user)


def router_of(request: Request) -> Router:
    return cast(Router, request.app.state.router)


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def count_refusal(scope: Scope, code: str) -> None:
    """Tell the metrics, if there are any, of an error that a client gets."""
    service = cast(Service, scope["app"].state.service)
    if service.metrics is not None:
        service.metrics.refused(code)


def request_id() -> str:
    """The id of the request that is being answered, ``-`` outside of one."""
    return _request_id.get()


def set_request_id(value: str) -> None:
    _request_id.set(value)
