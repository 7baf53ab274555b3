"""How often: rate limits by client, in this process's memory. The only file that knows the limits library.

What the headers say: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage, Storage
from limits.strategies import MovingWindowRateLimiter

OFF = "0"
"""The text of a rate that is none."""

FIRST_SWEEP = 1_024
"""Clients that are remembered before anybody looks which of them can be forgotten."""


@dataclass(slots=True)
class _Moments:
    """When a client was counted, oldest first, as long ago as ``expiry`` seconds."""

    expiry: int
    times: deque[float]

    def at(self, now: float) -> deque[float]:
        while self.times and self.times[0] <= now - self.expiry:
            self.times.popleft()
        return self.times


class Memory(MemoryStorage):
    """The library's own for moving windows, on a clock that is given, and without its threads.

    It would start one for every hit that comes 10 ms behind the last, to look through all clients. Here they are looked
    through when they have doubled.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        Storage.__init__(self)
        self.clock = clock
        self._moments: dict[str, _Moments] = {}
        self._sweep_at = FIRST_SWEEP

    def __len__(self) -> int:
        return len(self._moments)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = self.clock()
        if (moments := self._moments.get(key)) is None:
            if len(self._moments) >= self._sweep_at:
                self._sweep(now)
            moments = self._moments[key] = _Moments(expiry, deque())
        times = moments.at(now)
        if len(times) + amount > limit:
            return False
        times.extend([now] * amount)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002  # the library's
        now = self.clock()
        moments = self._moments.get(key)
        times = moments.at(now) if moments is not None else ()
        return (times[0], len(times)) if times else (now, 0)

    def _sweep(self, now: float) -> None:
        self._moments = {key: moments for key, moments in self._moments.items() if moments.at(now)}
        self._sweep_at = max(FIRST_SWEEP, 2 * len(self._moments))


class Rates:
    """``text``: what the library reads, such as ``30/minute;500/day``, of which all hold; ``0`` for none.

    Raises:
        ValueError: it cannot be read.
    """

    def __init__(self, name: str, text: str, clock: Callable[[], float]) -> None:
        items = [] if text.strip() == OFF else parse_many(text)
        self._memory = Memory(clock)
        self._limiter = MovingWindowRateLimiter(self._memory)
        self._items: list[tuple[str, RateLimitItem]] = [(f"{name}-{item.get_expiry()}s", item) for item in items]

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def policy(self) -> str:
        """For ``RateLimit-Policy``."""
        return ", ".join([f'"{name}";q={item.amount};w={item.get_expiry()}' for name, item in self._items])

    def state(self, client: str) -> str:
        """For ``RateLimit``: how many are left, and in how many seconds there is one more."""
        return ", ".join([f'"{name}";r={left};t={ceil(wait)}' for name, left, wait in self._stats(client)])

    def over(self, client: str, cost: int = 1) -> tuple[list[str], float] | None:
        """The limits that leave no room for so much, and the seconds until they may; None if there is room."""
        full = [(name, wait) for name, left, wait in self._stats(client) if left < cost]
        return ([name for name, _ in full], max(wait for _, wait in full)) if full else None

    def count(self, client: str) -> None:
        for _, item in self._items:
            self._limiter.hit(item, client)

    def _stats(self, client: str) -> list[tuple[str, int, float]]:
        now = self._memory.clock()
        found = []
        for name, item in self._items:
            reset, left = self._limiter.get_window_stats(item, client)
            found.append((name, left, max(0.0, reset - now) if left < item.amount else 0.0))
        return found
