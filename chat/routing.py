"""Which model answers: the one that was asked for, or the next in the chain while nothing was shown.

Whether the same is asked again is not decided here but by the run's generation.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from chat.breaker import Attempt, CircuitBreaker
from chat.context import Budgets
from chat.errors import ModelError
from chat.events import ModelSelected, Reason
from chat.ports import ChatModel, ModelRequest, Part, Reads
from chat.providers import Target
from chat.room import fitted_request
from chat.runs import RunKind

Connect = Callable[[Target], ChatModel]
"""Makes the client of a target's provider, which serves all its models."""

Prepare = Callable[[], None]
"""What takes a second and has to come before any :data:`Connect`. It is called in a thread."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that clients may ask for. ``available``: its provider's breaker is not open.

    ``context_tokens`` is how much of a conversation it is sent.
    """

    id: str
    provider: str
    default: bool
    available: bool
    context_tokens: int


class Router:
    """Asks the model that a request names, and those of the chain behind it while nothing was shown.

    ``offered`` are those that clients may choose, the default first; ``fallbacks`` are tried in their order; ``others``
    are asked only where a request names them. Each gets as much of the conversation as its budget says. A
    request that names a model which is in neither, because the settings have changed since, goes to the default.
    Each provider has one client, made on first use if not by :meth:`connect`, and one circuit breaker.
    """

    def __init__(
        self,
        offered: Sequence[Target],
        fallbacks: Sequence[Target],
        connect: Connect,
        clock: Callable[[], float] = time.monotonic,
        *,
        others: Sequence[Target] = (),
        budgets: Budgets | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self.name = offered[0].id
        self._offered = {target.id: target for target in offered}
        self._fallbacks = fallbacks
        self._known: Mapping[str, Target] = {target.id: target for target in (*others, *fallbacks, *offered)}
        self._budgets = budgets or Budgets()
        self._connect = connect
        self._prepare = prepare
        self._preparing: asyncio.Task[None] | None = None
        self._clients: dict[str, ChatModel] = {}
        self._breakers = {
            name: CircuitBreaker(name, clock) for name in {target.provider for target in self._known.values()}
        }

    @classmethod
    def alone(cls, model: ChatModel, budgets: Budgets | None = None) -> "Router":
        """For a single model that is there already."""
        return cls([Target(model.name, model.name, model.name)], [], lambda _: model, budgets=budgets)

    def connect(self) -> asyncio.Task[None]:
        """Make the default's client before it is needed, beside all that needs no model yet.

        What it imports takes half a second; to make it then some 50 ms, in which no stream gets a token.
        """
        self._preparing = asyncio.create_task(self._connected(), name="connect to the model")
        return self._preparing

    async def connected(self) -> None:
        """Wait for what :meth:`connect` has begun, if anything, and raise what has gone wrong there."""
        if self._preparing is not None:
            await asyncio.shield(self._preparing)

    def choices(self) -> Sequence[Choice]:
        return [
            Choice(
                target.id,
                target.provider,
                target.id == self.name,
                self._breakers[target.provider].closed,
                self._budgets.tokens(target.id),
            )
            for target in self._offered.values()
        ]

    def offers(self, name: str) -> bool:
        """Whether clients may ask for this model."""
        return name in self._offered

    def stream(self, request: ModelRequest) -> Reads:
        """See :class:`chat.ports.ChatModel`.

        A refusal of the text ends it. When all have failed in other ways, the failure is that of the model which asks
        for the least patience, so that the request may be repeated; if none can be repeated, that of the first.
        """
        return _Stream(self, request)

    async def close(self) -> None:
        if self._preparing is not None:
            await asyncio.wait({self._preparing})  # a thread cannot be cancelled
        for client in self._clients.values():
            await client.close()

    def chain(self, request: ModelRequest) -> Iterator[tuple[Target, Reason | None]]:
        """The models to ask, in turn, and what the log has to say of one that answers, if anything."""
        first = self._known.get(request.model or self.name)
        if first is None:
            first = self._known[self.name]
            yield first, "default"
        else:
            yield first, "requested" if request.speaker not in ("", first.id) else None
        for target in self._fallbacks:
            if target.id != first.id:
                yield target, "fallback"

    def admit(self, target: Target, request: ModelRequest) -> Attempt:
        """Raises ModelError while the provider's breaker is open."""
        return self._breakers[target.provider].admit(trial=request.kind is RunKind.ANSWER)

    def ask(self, target: Target, request: ModelRequest) -> Reads:
        room = self._budgets.room(target.id)
        if room < self._budgets.room(request.model or self.name):  # it stands in for a model that sees more
            request = fitted_request(request, room)
        return self._client(target).stream(replace(request, model=target.name))

    async def _connected(self) -> None:
        if self._prepare is not None:
            await asyncio.to_thread(self._prepare)
        self._client(self._offered[self.name])

    def _client(self, target: Target) -> ChatModel:
        if target.provider not in self._clients:
            self._clients[target.provider] = self._connect(target)
        return self._clients[target.provider]


class _Stream:
    """The stream of whichever model answers.

    Not a generator around a generator, which every token would have to climb through: from the second read on the
    reads are the chosen model's own, and cost one call more (0.1 us).
    """

    def __init__(self, router: Router, request: ModelRequest) -> None:
        self._router = router
        self._request = request
        self._reads: Reads | None = None
        self._next: Callable[[], Awaitable[Sequence[Part]]] = self._first

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Sequence[Part]]:
        return self._next()

    async def aclose(self) -> None:
        if self._reads is not None:
            await self._reads.aclose()

    async def _first(self) -> Sequence[Part]:
        """The first read of the first model in the chain that has one."""
        await self._router.connected()
        failures: list[ModelError] = []
        charged: list[str] = []
        for target, reason in self._router.chain(self._request):
            try:
                parts = await self._open(target)
            except ModelError as error:
                failures.append(error)
                if error.taken:
                    charged.append(target.id)
                if error.final:
                    break
                continue
            if reason is None:
                return parts
            cause = failures[0].code if failures else None
            logger.info("model %s answers: %s %s", target.id, reason, cause or "")
            # With the first parts, and so only if there are any: a model that was chosen in vain has shown nothing.
            return [ModelSelected(target.id, reason, cause, tuple(charged)), *parts]
        transient = [error for error in failures if error.transient]
        failure = failures[-1] if failures[-1].final else min(transient, key=_patience, default=failures[0])
        failure.charged = tuple(charged)
        raise failure

    async def _open(self, target: Target) -> Sequence[Part]:
        attempt = self._router.admit(target, self._request)
        try:
            self._reads = self._router.ask(target, self._request)
            parts = await anext(self._reads)
        except ModelError as error:
            # Whoever refuses is alive. https://learn.microsoft.com/azure/architecture/patterns/circuit-breaker
            if not error.transient:
                attempt.succeeded()
            elif self._request.kind is RunKind.ANSWER:  # nothing that is made beside the answers may cost one
                attempt.failed(error)
            raise
        else:
            attempt.succeeded()
            self._next = self._reads.__anext__
            return parts
        finally:
            attempt.given_up()


def _patience(error: ModelError) -> float:
    return error.retry_after or 0.0
