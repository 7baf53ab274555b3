"""What a token costs in the server's CPU time and how long it takes, beside other servers under the same load.

Each round measures every server once, one after the other; the figures are medians over the rounds, the ratios
medians of the ratios within a round, because the machine may be slower in one round than in another.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.load import GRACE
from benchmarks.peers import HANDWRITTEN, LITELLM_PROXY, NOT_TAKEN, PARLEY, PARLEY_ON_POSTGRES, PASSTHROUGH, PEERS, Peer
from benchmarks.processes import Reading, Server, upstream
from benchmarks.report import Report, verdict

ROUNDS = 3

RATE = 50.0
"""Tokens a second of one stream."""

ENDLESS = "Say 100000 tokens"
SHORT = "Say 1 tokens"

FINITE = 100
"""Tokens of an answer that an overloaded server may finish."""

REQUESTS = 160
"""Short answers from which the cost of a request is taken."""

PROBES = 50
"""Requests for a first frame while all streams go on."""

KEEPS_UP = 0.98
"""The part of the offered tokens below which a server is overloaded: what is late then only grows later."""

RATIOS = (
    (PARLEY, PASSTHROUGH, 1.5, "at most 1.5 times the pass-through's CPU per token"),
    (PARLEY, HANDWRITTEN, 1 / 4, "at most a quarter of the hand-written endpoint's CPU per token"),
    (PARLEY, LITELLM_PROXY, 1 / 10, "at most a tenth of LiteLLM's CPU per token"),
    (PARLEY_ON_POSTGRES, PARLEY, 1.3, "on PostgreSQL at most 1.3 times SQLite's CPU per token"),
)

LIMITS = (
    ("p50", 8.0, "added latency of a token under 8 ms at p50"),
    ("p99", 25.0, "added latency of a token under 25 ms at p99"),
    ("first_frame", 5.0, "first frame under 5 ms at p50"),
)


@dataclass(frozen=True, slots=True)
class Load:
    """``seconds``: how long is measured once all streams are open."""

    name: str
    streams: int
    seconds: float


FULL = Load("cost", 200, 4)
LIGHT = Load("cost-light", 10, 3)
"""One that every server bears: latencies and costs can be compared without what overload does to them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One server in one round.

    ``token`` and ``request``: CPU seconds. ``delivered``: the part of the offered tokens. Latencies: milliseconds.
    ``memory``: bytes with all streams open.
    """

    token: float
    request: float
    delivered: float
    p50: float
    p99: float
    first_frame: float
    memory: float


Samples = Mapping[str, Sequence[Sample]]
"""By peer's name, a sample a round."""


def run(*, short: bool, peers: Sequence[str] | None = None, loads: Sequence[Load] | None = None) -> Sequence[Report]:
    """``peers``: names; the default is all, or the three that targets name and that start quickly if ``short``."""
    if short:
        peers = peers or [PASSTHROUGH.name, PARLEY.name, HANDWRITTEN.name]
    loads = loads or ([replace(FULL, seconds=2)] if short else [FULL, LIGHT])
    chosen = _choose(peers)
    left_out = {peer.label: why for peer in chosen if (why := peer.missing())} | ({} if peers else dict(NOT_TAKEN))
    found: dict[str, dict[str, list[Sample]]] = {load.name: {} for load in loads}
    for number in range(1 if short else ROUNDS):
        for peer in (peer for peer in chosen if peer.label not in left_out):
            print(f"round {number + 1}: {peer.label}", file=sys.stderr, flush=True)
            try:
                for load in loads:
                    found[load.name].setdefault(peer.name, []).append(_sample(peer, load))
            except (RuntimeError, TimeoutError) as error:
                left_out[peer.label] = f"it failed: {type(error).__name__} {error}"
                for samples in found.values():
                    samples.pop(peer.name, None)
    return [_report(load, chosen, found[load.name], left_out) for load in loads]


def _choose(names: Sequence[str] | None) -> Sequence[Peer]:
    """In the order of the table.

    Raises:
        ValueError: there is no such peer.
    """
    if unknown := set(names or ()) - {peer.name for peer in PEERS}:
        raise ValueError(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in PEERS)}")
    return [peer for peer in PEERS if names is None or peer.name in names]


# --- one measurement ---------------------------------------------------------------------------------------------


def _sample(peer: Peer, load: Load) -> Sample:
    """Measured while the streams go on. An overloaded server has a backlog then and gives it out in lumps, so what a
    token costs it is taken from answers that it may finish in its own time.
    """
    with _started(peer) as server:
        request = _request(peer, server)
        sample = _steady(peer, server, load, request)
    if sample.delivered >= KEEPS_UP:
        return sample
    with _started(peer) as server:
        _request(peer, server)
        return replace(sample, token=_drained(peer, server, load, request))


@contextmanager
def _started(peer: Peer) -> Iterator[Server]:
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, upstream(RATE) as model:
        folder = Path(name)
        try:
            with peer.start(model.url, folder) as server:
                yield server
        except (RuntimeError, TimeoutError):
            log = folder / "log"
            print(log.read_text(errors="replace")[-2000:] if log.exists() else "no log", file=sys.stderr)
            raise


def _request(peer: Peer, server: Server) -> float:
    """CPU seconds of a request with an answer of one token."""
    with _reading(peer, server, SHORT, f"--requests={REQUESTS}") as warm:
        warm.event("done")  # what is imported or connected on demand is
    before = server.cpu()
    with _reading(peer, server, SHORT, f"--requests={REQUESTS}") as reading:
        requests = int(reading.event("done")["requests"])
    return (server.cpu() - before) / requests


def _reading(peer: Peer, server: Server, message: str, *options: str) -> Reading:
    return Reading(server.url + peer.path, "--body", peer.body(message), *options)


def _steady(peer: Peer, server: Server, load: Load, request: float) -> Sample:
    options = (f"--streams={load.streams}", f"--seconds={load.seconds}", f"--probes={PROBES}")
    with _reading(peer, server, ENDLESS, *options) as reading:
        reading.event("open")
        before = server.cpu()
        done = reading.event("done")
        used = server.cpu() - before
        memory = server.rss()
        probed = reading.event("probed")
    return Sample(
        token=used / max(1, done["tokens"]),
        request=request,
        delivered=done["tokens"] / (load.streams * RATE * load.seconds),
        p50=done["latency"].get("p50", inf),
        p99=done["latency"].get("p99", inf),
        first_frame=probed["first_frame"]["p50"],
        memory=memory,
    )


def _drained(peer: Peer, server: Server, load: Load, request: float) -> float:
    """CPU seconds of a token."""
    before = server.cpu()
    with _reading(peer, server, f"Say {FINITE} tokens", f"--streams={load.streams}", "--drain") as reading:
        found = int(reading.event("done")["tokens"])
    if found < load.streams * FINITE:
        raise RuntimeError(f"of {load.streams * FINITE} tokens only {found} came")
    # Not divided by what was found: some servers say the whole answer again at its end.
    return (server.cpu() - before - load.streams * request) / (load.streams * FINITE)


# --- the table ---------------------------------------------------------------------------------------------------


def _report(load: Load, chosen: Sequence[Peer], samples: Samples, left_out: Mapping[str, str]) -> Report:
    return Report(
        name=load.name,
        title=f"CPU and latency per token, {load.streams} streams of {RATE:g} tokens/s",
        columns=(
            "server",
            "CPU us/token",
            "times the pass-through",
            "delivered in time",
            "latency p50 ms",
            "latency p99 ms",
            "first frame p50 ms",
            "CPU ms/request",
            "RSS MiB",
        ),
        rows=[_row(peer, samples) for peer in chosen if peer.name in samples],
        chart=1,
        notes=[*_conditions(samples, left_out), *(_verdicts(samples) if load.name == FULL.name else ())],
    )


def _row(peer: Peer, samples: Samples) -> Sequence[object]:
    found = samples[peer.name]
    ratio = _ratio(samples, peer, PASSTHROUGH)
    return (
        peer.label,
        f"{_median(found, 'token') * 1e6:.1f}",
        "n/a" if ratio is None else f"{ratio:.2f}",
        f"{min(1, _median(found, 'delivered')):.0%}",
        _milliseconds(_median(found, "p50")),
        _milliseconds(_median(found, "p99")),
        _milliseconds(_median(found, "first_frame"), given_up=GRACE * 1e3),
        f"{_median(found, 'request') * 1e3:.1f}",
        f"{_median(found, 'memory') / 2**20:.0f}",
    )


def _milliseconds(value: float, given_up: float = inf) -> str:
    if value == inf:
        return "none came"
    return f"{value:,.1f}" if value < given_up else f"over {given_up:,.0f}"


def _median(samples: Sequence[Sample], name: str) -> float:
    return float(median(getattr(sample, name) for sample in samples))


def _ratio(samples: Samples, peer: Peer, other: Peer) -> float | None:
    """CPU per token, in times of the other's."""
    if peer.name not in samples or other.name not in samples:
        return None
    pairs = zip(samples[peer.name], samples[other.name], strict=True)
    return median(one.token / another.token for one, another in pairs)


def _conditions(samples: Samples, left_out: Mapping[str, str]) -> Sequence[str]:
    rounds = max(map(len, samples.values()), default=0)
    counted = f"Medians of {rounds} rounds" if rounds > 1 else "One round"
    conditions = (
        f"{counted}, Python {sys.version.split()[0]}, on {os.cpu_count()} cores that the upstream and the load "
        "generator share with the server. The CPU is the server's, user and system, of all its processes. A request "
        "is one with an answer of one token, on an idle server. The first frame is the first byte of the body of "
        "requests made while all the streams go on."
    )
    notes = [conditions]
    if PASSTHROUGH.name in samples:
        costs = [sample.token * 1e6 for sample in samples[PASSTHROUGH.name]]
        notes.append(
            f"The baseline's spread: the pass-through took {min(costs):.1f} to {max(costs):.1f} us a token "
            f"({max(costs) / min(costs) - 1:.0%} apart)."
        )
    late = [
        peer.label for peer in PEERS if peer.name in samples and _median(samples[peer.name], "delivered") < KEEPS_UP
    ]
    if late:
        notes.append(
            f"Overloaded: {'; '.join(late)}. Their latencies grow for as long as the load lasts. What a token costs "
            "them is that of finite answers in as many streams, read to their ends, less what the requests cost; "
            "they handle it in bundles then, which is cheaper."
        )
    notes += [f"Left out: {label}: {why}." for label, why in left_out.items()]
    return notes


def _verdicts(samples: Samples) -> Sequence[str]:
    notes = []
    for one, other, limit, goal in RATIOS:
        ratio = _ratio(samples, one, other)
        if ratio is not None:
            notes.append(verdict(goal, ratio <= limit, f"{ratio:.2f}"))
    for name, limit, goal in LIMITS if PARLEY.name in samples else ():
        found = _median(samples[PARLEY.name], name)
        notes.append(verdict(goal, found < limit, f"{_milliseconds(found)} ms"))
    return notes
