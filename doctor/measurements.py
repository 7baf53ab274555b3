"""What was measured. All times are in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

HELD_EVENTS = 2
"""Fewer events say nothing about how they came."""

LATE = 0.1
"""Seconds: haproxy is 0.2 late. Less is a busy machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the service saw of a request, and what it sent: ``DoctorReportView`` in `handlers/doctor.py`.

    The names of headers are in lower case.
    """

    service: str
    version: str
    http_version: str
    received: frozenset[str]
    sent: frozenset[str]
    body_limit: int
    ping_seconds: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """A numbered event: when the service sent it, from the request's arrival there, and when it came, from asking."""

    number: int
    sent: float
    came: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One request and its stream. ``status`` is 0 and ``trouble`` says why, where there was no response.

    ``whole``: the stream came to its end. ``last``: when something came for the last time; ``over``: when the stream
    ended, in whatever way. Both from asking.
    """

    status: int
    http_version: str = "HTTP/1.1"
    headers: Mapping[str, str] = field(default_factory=dict)
    report: Report | None = None
    arrivals: tuple[Arrival, ...] = ()
    whole: bool = True
    last: float = 0.0
    over: float = 0.0
    trouble: str = ""

    def held(self, floor: float) -> bool:
        """Whether the first event came only when the last one had been sent: what was between them held all back.

        ``floor``: what a request and its answer take at least.
        """
        events = self.arrivals
        return len(events) >= HELD_EVENTS and events[0].came - floor >= events[-1].sent

    def lateness(self, floor: float) -> float:
        """How long three of four events at least were on their way, over what they need; what is on time is 0.

        A machine that is busy delays some of them, a proxy all.
        """
        delays = sorted(event.came - floor - event.sent for event in self.arrivals)
        late = delays[len(delays) // 4] if delays else 0.0
        return late if late >= LATE else 0.0

    def in_time(self, floor: float) -> bool:
        return self.status == 200 and self.whole and not self.held(floor) and not self.lateness(floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A stream in which nothing happens for ``seconds``, but for the service's pings.

    ``cut``: None, or how long it was silent when it was lost; with pings, how long it had lasted.
    """

    seconds: float
    pings: bool
    cut: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """``floor``: what a request and its answer take at least. ``origin``: of the pages that use the service, if those
    are somewhere else. ``protocol``: what the front agreed to speak with a browser; empty where there is no TLS, None
    where it could not be found out. ``resumed``: the answer to a request with the id of event ``seen``.
    """

    url: str
    report: Report
    floor: float
    get: Watched
    post: Watched
    resumed: Watched
    seen: int
    full: Watched
    full_bytes: int
    silences: tuple[Silence, ...]
    protocol: str | None
    origin: str | None = None
    preflight: Watched | None = None
