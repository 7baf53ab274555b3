"""How much a client may ask of the service, and how much all of them together.

Counted in this process's memory, but for the tokens of known users, which the store has summed up for all processes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat.commands import NewRetry, NewRun, Started
from chat.engine import Engine
from chat.errors import ChatError
from chat.imports import NewImport
from chat.runs import Run
from handlers.budgets import Budgets
from handlers.clients import Client, Clients
from handlers.context import count_refusal, engine_of
from handlers.errors import refusal
from handlers.identity import NOBODY, identity_of
from handlers.places import Places, held
from handlers.rates import Rates
from handlers.wire import wire_of

FREE = {"/health", "/chat/health", "/ready", "/metrics"}
"""Asked every few seconds, by those who keep the service running."""

REPEATABLE = {
    "GET /chat",
    "POST /chat",
    "POST /api/chat",
    "POST /query",
    "POST /query/stream",
    "POST /ag-ui",
    "POST /chatkit",
    "POST /v1/chat/completions",
    "POST /v1/responses",
    "POST /documents",
}
"""And a run's retry. These may say once more what was said before, which costs nothing; their body tells."""

REFUSALS = {"rate_limited", "too_many_runs", "budget_spent", "service_full"}
"""Why no run is started."""

READ_AT_ONCE = 16
"""Documents that are read, or wait for it, while their senders wait: two at a time are, and each is in memory."""

READ_EACH = 4
"""Of these, for one client."""

MOMENT = 2.0
"""Seconds to wait for what may be there at any time: a place that somebody leaves."""

QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"
CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

_OVER = "parley.over"


@dataclass(frozen=True, slots=True)
class Caps:
    """How many at a time, in this process; 0 is any number. ``followers``: of one run. ``*_each``: for one client.

    A replay is a stream of a run that has ended: it is read from the store as fast as its client takes it.
    """

    runs: int = 0
    runs_each: int = 0
    streams: int = 0
    streams_each: int = 0
    replays: int = 0
    replays_each: int = 0
    followers: int = 0


@dataclass(slots=True)
class Limits:
    """``requests`` and ``starts`` are rates: of all requests, and of those that start a run.

    ``strangers``: of anonymous users that an address is given. ``mistakes``: of wrong keys and tokens that it shows.
    """

    clients: Clients
    requests: Rates
    starts: Rates
    strangers: Rates
    mistakes: Rates
    caps: Caps
    budgets: Budgets
    _starting: Places = field(default_factory=lambda: Places(0))
    _streams: Places = field(init=False)
    _streams_each: Places = field(init=False)
    _replays: Places = field(init=False)
    _replays_each: Places = field(init=False)
    _followers: Places = field(init=False)
    _reading: Places = field(default_factory=lambda: Places(READ_AT_ONCE))
    _reading_each: Places = field(default_factory=lambda: Places(READ_EACH))

    def __post_init__(self) -> None:
        self._streams, self._streams_each = Places(self.caps.streams), Places(self.caps.streams_each)
        self._replays, self._replays_each = Places(self.caps.replays), Places(self.caps.replays_each)
        self._followers = Places(self.caps.followers)

    @property
    def policy(self) -> str:
        return ", ".join([rates.policy for rates in (self.requests, self.starts) if rates])

    @property
    def open_streams(self) -> int:
        return self._streams.count(None)

    def too_often(self, rates: Rates, client: Client, cost: int = 1) -> ChatError | None:
        """Why not, if the client has had its share."""
        if (over := rates.over(client.name, cost)) is None:
            return None
        names, wait = over
        return _refused("rate_limited", "Too many requests; ask again in a while.", wait, *names)

    def stranger(self, scope: Scope) -> None:
        """An anonymous user is made for who asks.

        Raises:
            ChatError: ``rate_limited``: so many were made for this address.
        """
        client = self.clients.who(scope, NOBODY)
        if client is not None:
            if (error := self.too_often(self.strangers, client)) is not None:
                raise error
            self.strangers.count(client.name)

    def mistaken(self, scope: Scope, error: ChatError) -> ChatError:
        """What to say to who has shown a wrong key or token: ``error``, or that there were too many of them.

        Only of wrong ones: behind the address of somebody who guesses there may be others, whose keys are right.
        """
        client = self.clients.who(scope, NOBODY)
        if client is None:
            return error
        if (over := self.mistakes.over(client.name)) is not None:
            return _refused("rate_limited", "Too many wrong keys or tokens; try another in a while.", over[1], *over[0])
        self.mistakes.count(client.name)
        return error

    @contextmanager
    def starting(self, client: Client | None, engine: Engine) -> Iterator[None]:
        """While a run is being started, it counts as if it were there."""
        with held(*[(self._starting, name) for name in {None, client}]):
            if 0 < self.caps.runs < engine.generating + self._starting.count(None):
                raise _full("runs", "This service answers as many messages as it can; ask again in a moment.")
            if client is not None and (error := self.too_often(self.starts, client, self._starting.count(client))):
                raise error
            yield

    @contextmanager
    def reading(self, client: Client | None) -> Iterator[None]:
        """A place for a document that is read while its sender waits.

        Raises:
            ChatError: ``rate_limited``, ``service_full``.
        """
        if client is not None and self._reading_each.full(client):
            message = "So many of your documents are being read; wait for one of them, or send them as an import."
            raise _refused("rate_limited", message, MOMENT, "documents")
        if self._reading.full(None):
            raise _full("documents", "So many documents are being read that no more can wait; ask again in a moment.")
        each = [] if client is None else [(self._reading_each, client)]
        with held((self._reading, None), *each):
            yield

    async def check(self, client: Client, engine: Engine) -> None:
        """Whether the client may have another run.

        Raises:
            ChatError: ``too_many_runs``, ``budget_spent``; ``store_unavailable``.
        """
        busy = await self.budgets.settle(client, engine, self.caps.runs_each - self._starting.count(client))
        if 0 < self.caps.runs_each < busy + self._starting.count(client):
            message = "So many of your messages are being answered; wait for one of the answers, or stop it."
            raise _refused("too_many_runs", message, MOMENT, "runs")
        await self.budgets.check(client, engine)

    def seat(self, client: Client | None, run: Run | None) -> Callable[[], None]:
        """A place for a stream, which the caller has to leave: that of a run, or another.

        Raises:
            ChatError: there is none.
        """
        wanted: list[tuple[Places, object, Callable[[], ChatError]]] = [
            (self._streams, None, lambda: _full("streams", "This service has as many streams open as it can."))
        ]
        if client is not None:
            many = "You have so many streams open; close one of them."
            wanted.append((self._streams_each, client, lambda: _refused("too_many_streams", many, MOMENT, "streams")))
        if run is not None:
            crowd = "So many follow this run that it takes no more; ask again in a moment."
            wanted.append((self._followers, run.id, lambda: _full("followers", crowd)))
        if run is not None and not run.status.active:
            wanted.append((self._replays, None, lambda: _full("replays", "So many answers are being read again.")))
            if client is not None:
                often = "You read so many answers again at a time; wait for one of them to end."
                wanted.append(
                    (self._replays_each, client, lambda: _refused("too_many_streams", often, MOMENT, "replays"))
                )
        for places, name, error in wanted:
            if places.full(name):
                raise error()
        for places, name, _ in wanted:
            places.take(name)

        def leave() -> None:
            for places, name, _ in wanted:
                places.leave(name)

        return leave


class LimitsMiddleware:
    """Counts requests, and says what is left. Pure ASGI: see :class:`handlers.middleware.RequestMiddleware`."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._policy = limits.policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits, client = self._limits, None
        if scope["type"] == "http" and self._policy and not _free(scope["path"]):
            client = limits.clients.who(scope, identity_of(HTTPConnection(scope)))
        if client is None:
            await self._app(scope, receive, send)
            return
        repeatable = _repeatable(scope["method"], scope["path"])
        over = limits.too_often(limits.requests, client)
        if over is None and not repeatable:
            limits.requests.count(client.name)
        rates = (limits.requests, limits.starts) if repeatable else (limits.requests,)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if over is None and repeatable and "idempotency-replayed" not in headers:
                    limits.requests.count(client.name)
                headers["RateLimit-Policy"] = self._policy
                if state := ", ".join([each.state(client.name) for each in rates if each]):
                    headers["RateLimit"] = state
            await send(message)

        if over is None or repeatable:
            scope[_OVER] = over
            await self._app(scope, receive, send_counted)
        else:
            count_refusal(scope, over.code)
            await refusal(over, scope["method"], scope["path"])(scope, receive, send_counted)


def refuse_over(request: Request) -> None:
    """Where a repeatable request turned out to ask for something new, and starts no run. Raises ChatError
    ``rate_limited``."""
    if (over := request.scope.get(_OVER)) is not None:
        raise over


async def started(request: Request, new: NewRun | NewRetry | NewImport) -> Started:
    """Start the run, if the client may have one. What it has started before costs nothing, whatever its limits.

    Raises:
        ChatError: the codes of :data:`REFUSALS`, and whatever starting raises.
    """
    engine, limits, client = engine_of(request), limits_of(request), client_of(request)
    everybody = cast(Engine, request.app.state.engine)  # an address may have been several users
    try:
        refuse_over(request)
        with limits.starting(client, everybody):
            if client is not None:
                await limits.check(client, everybody)
            begun = await engine.start(new)
            if client is not None and begun.created:
                limits.starts.count(client.name)
                limits.budgets.add(client, begun.run.id)
            return begun
    except ChatError as error:
        if error.code not in REFUSALS or new.claim is None:
            raise
        if (before := await engine.store.claimed(new.claim)) is None:
            raise
        return before


def take_seat(request: Request, run: Run | None = None) -> None:
    """Have a place for a stream until the request is over.

    Raises:
        ChatError: there is none.
    """
    wire_of(request.scope).on_end(limits_of(request).seat(client_of(request), run))


def limits_of(request: Request) -> Limits:
    return cast(Limits, request.app.state.limits)


def client_of(request: Request) -> Client | None:
    """Whom the request counts for by now: a server in front may have named a user."""
    return limits_of(request).clients.who(request.scope, identity_of(request))


def _free(path: str) -> bool:
    return path in FREE or path.startswith("/static/")


def _repeatable(method: str, path: str) -> bool:
    return f"{method} {path}" in REPEATABLE or (method == "POST" and path.endswith("/retry"))


def _refused(code: str, message: str, wait: float, *names: str) -> ChatError:
    return ChatError(code, message, details={"type": QUOTA, "violated-policies": list(names)}, retry_after=wait)


def _full(name: str, message: str) -> ChatError:
    details = {"type": CAPACITY, "violated-policies": [name]}
    return ChatError("service_full", message, details=details, retry_after=MOMENT)
