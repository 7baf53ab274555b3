"""Replicas with one PostgreSQL: a token's cost beside SQLite, what a second one carries, how late a follower is on the
one that does not generate, and how long an answer stands still when its replica goes away.
"""

import asyncio
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain

import uvloop

from benchmarks import cost, takeover
from benchmarks.cost import ENDLESS
from benchmarks.databases import cpu_by_backend, database, missing, replicas_on
from benchmarks.load import percentiles
from benchmarks.peers import PARLEY, PARLEY_ON_POSTGRES
from benchmarks.processes import Reading, Server, upstream
from benchmarks.report import Report, verdict
from benchmarks.streams import Reader, connect_all, follow, start_run
from benchmarks.tokens import MARK, age_us, now_us

TARGET = 1.8
"""Times the tokens of one replica that two have to carry."""

STREAMS = 150
"""For each replica."""

RATE = 50.0


def run(*, short: bool) -> Sequence[Report]:
    """Raises RuntimeError where there is no PostgreSQL."""
    if (why := missing()) is not None:
        raise RuntimeError(f"PostgreSQL is needed: {why}")
    loads = [replace(cost.FULL, streams=20, seconds=2) if short else cost.FULL]
    beside = cost.run(short=short, peers=[PARLEY.name, PARLEY_ON_POSTGRES.name], loads=loads)
    return [
        *(replace(report, name="replicas-cost", title=f"{report.title}: SQLite and PostgreSQL") for report in beside),
        carrying(*(STREAMS // 5, 2.0, 1) if short else (STREAMS, 8.0, 3)),
        following(*(20, 2.0) if short else (100, 8.0)),
        takeover.report(*(5, 1) if short else (20, 5)),
    ]


# --- what two carry ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Carried:
    """``cpu``: CPU seconds of each replica; ``database``: of PostgreSQL's processes; ``latency`` in milliseconds."""

    tokens: int
    cpu: Sequence[float]
    database: float
    latency: dict[str, float]

    @property
    def cost(self) -> float:
        """Microseconds of the replicas' CPU a token."""
        return sum(self.cpu) / self.tokens * 1e6


def carrying(streams: int, seconds: float, rounds: int) -> Report:
    found: dict[tuple[int, int], Carried] = {}
    rows = []
    with upstream(RATE, int(RATE * (seconds + 60))) as model:
        for replicas, load in ((1, streams), (1, 2 * streams), (2, 2 * streams)):
            tries = [_carry(model, replicas, load, seconds) for _ in range(rounds)]
            carried = found[replicas, load] = sorted(tries, key=lambda one: one.cost)[rounds // 2]
            stored = carried.database / carried.tokens * 1e6
            latency = [carried.latency[name] for name in ("p50", "p95", "p99")]
            full = f"{replicas * 1e6 / carried.cost:,.0f}"
            rows.append((replicas, load, f"{carried.cost:.1f}", f"{stored:.1f}", full, *latency))
    two = found[2, 2 * streams].cost
    alike, same = (2 * found[1, load].cost / two for load in (streams, 2 * streams))
    return Report(
        name="replicas",
        title="Two replicas beside one, with one PostgreSQL",
        columns=(
            "replicas",
            "streams",
            "us of CPU a token",
            "PostgreSQL's us",
            "tokens/s at 100%",
            "p50 ms",
            "p95 ms",
            "p99 ms",
        ),
        rows=rows,
        notes=(
            f"Streams of {RATE:g} tokens/s; the middle one of {rounds} rounds by cost.",
            "Tokens/s at 100% are computed, replicas / CPU a token: all else would need cores of its own.",
            "PostgreSQL's CPU is that of its processes for this database.",
            verdict(f"two carry {TARGET:g} times one, each loaded as the one", alike >= TARGET, f"{alike:.2f}"),
            f"At the same load for one and for two, where each of the two has less to commit together: {same:.2f}.",
        ),
    )


def _carry(model: Server, count: int, streams: int, seconds: float) -> Carried:
    with ExitStack() as stack:
        url = stack.enter_context(database())
        replicas = replicas_on(stack, count, url, model)
        options = (f"--streams={streams // count}", f"--seconds={seconds}")
        readings = [stack.enter_context(Reading(f"{replica.url}/chat", *options)) for replica in replicas]
        for reading in readings:
            reading.event("open")
        before, stored = [replica.cpu() for replica in replicas], cpu_by_backend(url)
        done = [reading.event("done") for reading in readings]
        cpu = [replica.cpu() - used for replica, used in zip(replicas, before, strict=True)]
        now = cpu_by_backend(url)
        used = sum(now[pid] - stored.get(pid, 0.0) for pid in now)
    tokens = sum(one["tokens"] for one in done)
    latency = {name: max(one["latency"][name] for one in done) for name in ("p50", "p95", "p99")}
    return Carried(tokens, cpu, used, latency)


# --- followers on the own replica and on another -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Followed:
    """``cpu`` of the replica that generates and of the other, seconds on a CPU; latencies in milliseconds."""

    tokens: int
    cpu: Sequence[float]
    own: dict[str, float]
    foreign: dict[str, float]


def following(streams: int, seconds: float) -> Report:
    with upstream(RATE) as model, ExitStack() as stack:
        replicas = replicas_on(stack, 2, stack.enter_context(database()), model)
        found = uvloop.run(_follow(replicas, streams, seconds))
    rows = []
    for followed, one in found.items():
        own, other = (cpu / seconds for cpu in one.cpu)
        latency = [latencies.get(name, "") for latencies in (one.own, one.foreign) for name in ("p50", "p99")]
        rows.append((followed, *latency, f"{own:.0%}", f"{other:.1%}"))
    later = found[streams].foreign["p50"] - found[streams].own["p50"]
    idle, single, whole = (found[count].cpu[1] for count in (0, 1, streams))
    return Report(
        name="replicas-following",
        title=f"Followers on two replicas of {streams} runs that one of them generates",
        columns=(
            "followed elsewhere",
            "own p50 ms",
            "own p99 ms",
            "foreign p50 ms",
            "foreign p99 ms",
            "CPU of the own",
            "CPU of the foreign",
        ),
        rows=rows,
        notes=(
            f"{RATE:g} tokens/s each, for {seconds:g} s; every run is followed on its own replica as well.",
            "A token's latency is its age, from when the model said it until the follower has it.",
            f"A foreign replica adds {later:.1f} ms at p50 to that of the own one.",
            f"To follow all costs the foreign replica {(whole - idle) / found[streams].tokens * 1e6:.1f} us a token.",
            f"To follow one costs it {(single - idle) / seconds:.1%} of a core more than none.",
        ),
    )


async def _follow(replicas: Sequence[Server], streams: int, seconds: float) -> dict[int, Followed]:
    """By the number of runs that are followed on the other replica."""
    one, other = replicas
    ids = [start_run(one, ENDLESS) for _ in range(streams)]
    own = await _connect(ids, one)
    foreign: list[Aged] = []
    found = {}
    for followed in (0, 1, streams):
        foreign += await _connect(ids[len(foreign) : followed], other)
        await asyncio.sleep(1)  # what was said before they came is old
        for reader in (*own, *foreign):
            del reader.ages[:]
        before = [replica.cpu() for replica in replicas]
        await asyncio.sleep(seconds)
        used = [replica.cpu() - cpu for replica, cpu in zip(replicas, before, strict=True)]
        mine, theirs = (array("q", chain.from_iterable(reader.ages for reader in group)) for group in (own, foreign))
        found[followed] = Followed(len(mine), used, percentiles(mine), percentiles(theirs))
    for reader in (*own, *foreign):
        reader.leave()
    await asyncio.gather(*[reader.closed for reader in (*own, *foreign)])  # a loop with open connections never closes
    return found


async def _connect(ids: Sequence[str], replica: Server) -> "list[Aged]":
    return await connect_all(lambda number: Aged(follow(ids[number])), len(ids), replica)


class Aged(Reader):
    """Knows how old each token was when it came, in microseconds."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.ages = array("q")
        self._rest = b""

    def received(self, data: bytes) -> None:
        now, data = now_us(), self._rest + data
        self._rest = data[-8:] if b"@" in data[-8:] else b""  # a token may be cut
        self.ages.extend([age_us(mark, now) for mark in MARK.findall(data)])
