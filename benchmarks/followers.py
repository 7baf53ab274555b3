"""What a follower costs: one that waits, in memory and heartbeats, and one of many on the same run, in CPU a frame."""

import asyncio
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.load import percentiles
from benchmarks.processes import Server, parley, upstream
from benchmarks.report import Report, verdict
from benchmarks.streams import Reader, connect_all, follow, raise_descriptor_limit, start_run
from benchmarks.tokens import MARK, age_us, now_us

MEMORY_TARGET = 25.0
"""KiB of the server's resident memory for one open follower."""

HEARTBEAT_TARGET = 2.0
"""Percent of a core for the heartbeats of ``MANY`` followers, one each every ``PING`` seconds."""

FRAME_TARGET = 5.0
"""Microseconds of the server's CPU for one frame to one follower."""

MANY = 10_000
PING = 15.0

RUNS = 100
"""Silent runs that the waiting followers are spread over."""

SAMPLE = 20
"""Every so many followers one looks at the age of what it gets: parsing all would be the load, not the server."""


def run(*, short: bool) -> Sequence[Report]:
    raise_descriptor_limit()
    return [_waiting(1_000, 3.0) if short else _waiting(MANY, PING), _crowd(200 if short else 1_000, 2 if short else 8)]


# --- followers that wait ---------------------------------------------------------------------------------------


class Waiting(Reader):
    """Hears only heartbeats."""

    def __init__(self, run_id: str) -> None:
        super().__init__(follow(run_id))
        self.pings = 0

    def received(self, data: bytes) -> None:
        self.pings += data.count(b": ping\n")


@dataclass(frozen=True, slots=True)
class Held:
    """``memory``: bytes of all followers; ``opening``, ``idle``, ``held``: CPU seconds, the latter two a second."""

    memory: int
    opening: float
    idle: float
    held: float
    pings: float


def _waiting(followers: int, ping: float) -> Report:
    settings = {"STREAM_DELAY": "3600", "PING_SECONDS": str(ping)}  # the echo model says a word, and no other
    with TemporaryDirectory() as folder, parley(Path(folder), **settings) as server:
        ids = [start_run(server) for _ in range(RUNS)]
        held = uvloop.run(_hold(server, ids, followers, ping))
    memory = held.memory / followers / 1024
    heartbeat = (held.held - held.idle) / held.pings
    share = heartbeat * MANY / PING * 100
    return Report(
        name="followers-waiting",
        title="Followers that wait",
        columns=("followers", "KiB each", "ms of CPU to open", "pings/s", "us of CPU a ping", "% of a core"),
        rows=[
            (
                f"{followers:,}",
                f"{memory:.1f}",
                f"{held.opening / followers * 1e3:.2f}",
                f"{held.pings:.0f}",
                f"{heartbeat * 1e6:.1f}",
                f"{held.held * 100:.2f} (idle {held.idle * 100:.2f})",
            )
        ],
        notes=(
            f"Spread over {RUNS} silent runs; a heartbeat every {ping:g} s.",
            verdict(f"at most {MEMORY_TARGET:g} KiB each", memory <= MEMORY_TARGET, f"{memory:.1f}"),
            verdict(
                f"under {HEARTBEAT_TARGET:g}% of a core for the heartbeats of {MANY:,}, every {PING:g} s",
                share < HEARTBEAT_TARGET,
                f"{share:.2f}%" if followers == MANY else f"{share:.2f}%, scaled up",
            ),
        ),
    )


async def _hold(server: Server, ids: Sequence[str], followers: int, ping: float) -> Held:
    first = await connect_all(lambda number: Waiting(ids[number % RUNS]), RUNS, server)  # what is imported on demand
    for reader in first:
        reader.leave()
    await asyncio.sleep(1)
    idle = await cpu_share(server, 2)
    memory, cpu = server.rss(), server.cpu()
    readers = await connect_all(lambda number: Waiting(ids[number % RUNS]), followers, server)
    opening = server.cpu() - cpu
    await asyncio.sleep(ping + 0.5)  # every one has sent a heartbeat: the memory that takes is there, too
    before, began = sum(reader.pings for reader in readers), time.monotonic()
    held = await cpu_share(server, 2 * ping)
    pings = (sum(reader.pings for reader in readers) - before) / (time.monotonic() - began)
    if any(reader.closed.done() for reader in readers):
        raise RuntimeError("the server has closed streams")
    return Held(server.rss() - memory, opening, idle, held, pings)


async def cpu_share(server: Server, seconds: float) -> float:
    """CPU seconds a second that the server uses for so long."""
    cpu, began = server.cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    return (server.cpu() - cpu) / (time.monotonic() - began)


# --- followers of one run --------------------------------------------------------------------------------------


class Listening(Reader):
    """Counts what arrives; ``ages``, if it is given, takes microseconds from model to here."""

    def __init__(self, run_id: str, ages: "array[int] | None") -> None:
        super().__init__(follow(run_id))
        self.frames = self.tokens = self.reads = 0
        self._ages = ages

    def received(self, data: bytes) -> None:
        self.reads += 1
        self.frames += data.count(b"id: ")  # no token has that in it
        self.tokens += data.count(b"@")
        if self._ages is not None:
            now = now_us()
            self._ages.extend([age_us(mark, now) for mark in MARK.findall(data)])


@dataclass(frozen=True, slots=True)
class Heard:
    """``cpu`` in seconds, of the server; ``latency`` in milliseconds; the rest of all followers together."""

    frames: int
    tokens: int
    reads: int
    cpu: float
    seconds: float
    latency: dict[str, float]


def _crowd(followers: int, seconds: float) -> Report:
    rows, notes = [], []
    for rate in (50, 200):
        with (
            upstream(rate, int(rate * (seconds + 20))) as model,
            TemporaryDirectory() as folder,
            parley(Path(folder), base_url=f"{model.url}/v1") as server,
        ):
            heard = uvloop.run(_listen(server, start_run(server), followers, seconds))
        cost = heard.cpu / heard.frames * 1e6
        rows.append(
            (
                f"{followers:,}",
                rate,
                f"{heard.frames / heard.seconds:,.0f}",
                f"{heard.tokens / heard.frames:.1f}",
                f"{heard.frames / heard.reads:.1f}",
                f"{cost:.2f}",
                f"{heard.cpu / heard.tokens * 1e6:.2f}",
                f"{heard.cpu / heard.seconds * 100:.0f}%",
                *[heard.latency[name] for name in ("p50", "p95", "p99")],
            )
        )
        goal = f"less than {FRAME_TARGET:g} us of CPU a frame and follower at {rate} tokens/s"
        notes.append(verdict(goal, cost < FRAME_TARGET, f"{cost:.2f}"))
    return Report(
        name="followers-crowd",
        title="Many followers of one run",
        columns=(
            "followers",
            "tokens/s",
            "frames/s",
            "tokens a frame",
            "frames a read",
            "us of CPU a frame",
            "us of CPU a token",
            "CPU",
            "p50 ms",
            "p95 ms",
            "p99 ms",
        ),
        rows=rows,
        notes=(
            "A frame is an event. All of the server's CPU is counted, what the run itself takes with it.",
            "More than one token a frame: the journal merges what waits, because the process is busy.",
            f"Latency is from the model to the follower, of every {SAMPLE}th; one process beside the server reads all.",
            *notes,
        ),
    )


async def _listen(server: Server, run_id: str, followers: int, seconds: float) -> Heard:
    ages = array("q")
    readers = await connect_all(
        lambda number: Listening(run_id, ages if number % SAMPLE == 0 else None), followers, server
    )
    await asyncio.sleep(1)
    del ages[:]
    before, cpu, began = _heard(readers), server.cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    after, cpu, took = _heard(readers), server.cpu() - cpu, time.monotonic() - began
    frames, tokens, reads = (late - early for late, early in zip(after, before, strict=True))
    return Heard(frames, tokens, reads, cpu, took, percentiles(ages))


def _heard(readers: Sequence[Listening]) -> tuple[int, int, int]:
    return (
        sum(reader.frames for reader in readers),
        sum(reader.tokens for reader in readers),
        sum(reader.reads for reader in readers),
    )
