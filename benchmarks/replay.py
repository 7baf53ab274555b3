"""How fast what was already said comes again: a finished answer to a new client, and a crowd that reconnects."""

import asyncio
import random
import statistics
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.processes import Server, parley, upstream
from benchmarks.report import Report, verdict
from benchmarks.streams import (
    IDS,
    PATIENCE,
    Reader,
    Whole,
    ask,
    connect,
    connect_all,
    follow,
    raise_descriptor_limit,
    start_run,
)
from benchmarks.tokens import MARK, token
from chat.commands import NewRun
from chat.commits import Append, Settlement
from chat.events import Event, TextDelta, completed
from chat.ids import new_id
from chat.sessions import NewSession, Turn
from store.sqlite import SqliteStore

EVENTS = 10_000

REPLAY_TARGET = 500_000
"""Events a second."""

SERVED_TARGET = 2.0
"""Seconds from the first reconnect of a crowd until the last client has caught up."""

CLIENTS = 1_000

RUNS = 50
RATE = 20.0
"""Live runs that the crowd follows, and tokens a second of each."""

AWAY = 2.0
"""Seconds within which the clients are cut off, at any moment; then all of them reconnect within ``STORM``."""

STORM = 1.0


def run(*, short: bool) -> Sequence[Report]:
    raise_descriptor_limit()
    return [_finished(5 if short else 30), _reconnects(CLIENTS // 5 if short else CLIENTS, 1 if short else 3)]


# --- a finished answer -----------------------------------------------------------------------------------------


def _finished(rounds: int) -> Report:
    rows, notes = [], []
    with TemporaryDirectory() as folder:
        run_id = asyncio.run(_store_answer(Path(folder)))
        with parley(Path(folder)) as server:
            for name in ("text", "events"):
                first, walls, cpu = uvloop.run(_fetch(server, run_id, name, rounds))
                per_cpu, per_wall = EVENTS * rounds / cpu, EVENTS / statistics.median(walls)
                times = (f"{seconds * 1e3:.1f}" for seconds in (first, statistics.median(walls), cpu / rounds))
                rows.append((f"{name}", f"{EVENTS:,}", *times, f"{per_wall:,.0f}", f"{per_cpu:,.0f}"))
                goal = f"more than {REPLAY_TARGET:,} events/s as format={name}"
                notes.append(verdict(goal, per_wall > REPLAY_TARGET, f"{per_wall:,.0f}"))
    columns = ("format", "events", "first ms", "median ms", "CPU ms", "events/s", "events/s of CPU")
    note = f"One client after another, {rounds} of each format, from its connection to the last byte."
    return Report("replay-finished", "Replay of a finished answer", columns, rows, notes=(note, *notes))


async def _store_answer(folder: Path) -> str:
    """Write a finished run of ``EVENTS`` events: its upstream would take a while, and bursts be merged; its id."""
    store = SqliteStore(folder / "parley.db")
    await store.open()
    try:
        new = NewRun(new_id("run"), NewSession("replayed", "ann"), None, [Turn("user", "Hello")], "benchmark")
        run = (await store.start_run(new)).run
        text = [token() for _ in range(EVENTS - 1)]
        end = completed("".join(text), "stop", None)
        log: list[Event] = [*map(TextDelta, text), end]
        await store.commit([Append(run, 1, log, Settlement(end, "".join(text), log))])
    finally:
        await store.close()
    return run.id


async def _fetch(server: Server, run_id: str, name: str, rounds: int) -> tuple[float, list[float], float]:
    """Seconds of the first fetch and of ``rounds`` more, and the CPU seconds of the latter."""
    walls: list[float] = []
    cpu = 0.0
    for number in range(rounds + 1):
        if number == 1:
            cpu = server.cpu()
        began = time.perf_counter()
        reader = await connect(Whole(follow(run_id, query=f"?format={name}")), server)
        async with asyncio.timeout(PATIENCE):
            await reader.done
        walls.append(time.perf_counter() - began)
        reader.leave()
        if list(map(int, IDS.findall(reader.body))) != list(range(EVENTS + 1)):
            raise RuntimeError("the replay has a hole")
    return walls[0], walls[1:], server.cpu() - cpu


# --- a crowd that reconnects -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Client:
    """Somebody who follows a run, over as many connections as it takes."""

    run_id: str
    last: int = 0
    text: int = 0
    """Checksum of all tokens."""

    wrong: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    asked: float = 0.0
    edge: int = 0
    """What had been shown to anybody when this client asked again, at ``asked``."""

    caught_up: float = 0.0
    again: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has that, at ``caught_up``."""


class Connection(Reader):
    """One of a client's connections: every event must be the next one."""

    def __init__(self, client: Client) -> None:
        super().__init__(follow(client.run_id, client.last or None))
        self._client = client
        self._rest = b""
        self._opening = True

    def received(self, data: bytes) -> None:
        client = self._client
        frames, end, self._rest = (self._rest + data).rpartition(b"\n\n")
        ids = list(map(int, IDS.findall(frames + end)))
        if ids and self._opening:
            self._opening = False
            if ids.pop(0) != client.last:
                client.wrong.append(f"the stream was opened elsewhere than at {client.last}")
        if ids != list(range(client.last + 1, client.last + 1 + len(ids))):
            client.wrong.append(f"{ids[:9]} came behind {client.last}")
        client.last = ids[-1] if ids else client.last
        client.text = zlib.crc32(b"".join(MARK.findall(frames)), client.text)
        if b"event: run.cancelled" in frames:
            client.ended.set()
        if client.asked and not client.caught_up and not self._opening and client.last >= client.edge:
            client.caught_up = time.perf_counter()
            client.again.set()


def _reconnects(clients: int, calm: float) -> Report:
    """``calm``: seconds before the first is cut off, and again from the storm to the end of the runs."""
    runs = RUNS * clients // CLIENTS
    with (
        upstream(RATE, int(RATE * PATIENCE * 3)) as model,  # until they are cancelled
        TemporaryDirectory() as folder,
        parley(Path(folder), base_url=f"{model.url}/v1") as server,
    ):
        ids = [start_run(server) for _ in range(runs)]
        storm = uvloop.run(_storm(server, ids, clients, calm))
    waits = sorted(client.caught_up - client.asked for client in storm.clients)
    served = max(client.caught_up for client in storm.clients) - storm.began
    wrong = [why for client in storm.clients for why in client.wrong[:1]]
    different = len({(client.run_id, client.last, client.text) for client in storm.clients}) - runs
    torn = len(wrong) + different
    row = (
        f"{clients:,}", runs, f"{storm.missed:,}", f"{waits[len(waits) // 2] * 1e3:.0f}", f"{waits[-1] * 1e3:.0f}",
        f"{served:.2f}", f"{storm.cpu / clients * 1e3:.2f}", torn,
    )  # fmt: skip
    return Report(
        name="replay-reconnects",
        title="A crowd that reconnects",
        columns=("clients", "runs", "events missed", "p50 ms", "worst ms", "all after s", "ms of CPU each", "torn"),
        rows=[row],
        notes=(
            f"{runs} live runs of {RATE:g} tokens/s; cut off at any moment of {AWAY:g} s, back within {STORM:g} s.",
            "p50 and worst: from a client's connection until it has all that anybody had been shown when it asked.",
            verdict(
                f"all within {SERVED_TARGET:g} s from the first reconnect", served < SERVED_TARGET, f"{served:.2f} s"
            ),
            verdict(
                "no hole, no repeat, and the same text for all of a run",
                not torn,
                "; ".join(wrong[:3]) or f"{torn} torn",
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class Storm:
    """``began`` is the first reconnect; ``cpu`` seconds of the server until all had caught up."""

    clients: Sequence[Client]
    began: float
    cpu: float
    missed: int


async def _storm(server: Server, ids: Sequence[str], count: int, calm: float) -> Storm:
    witnesses = {run_id: Client(run_id) for run_id in ids}
    clients = [Client(ids[number % len(ids)]) for number in range(count)]
    await connect_all(lambda number: Connection(witnesses[ids[number]]), len(ids), server)
    readers = await connect_all(lambda number: Connection(clients[number]), count, server)
    await asyncio.sleep(calm)
    loop = asyncio.get_running_loop()
    for reader in readers:
        loop.call_later(random.uniform(0, AWAY), reader.leave)
    await asyncio.sleep(AWAY)
    missed = sum(witnesses[client.run_id].last - client.last for client in clients)
    began, cpu = time.perf_counter(), server.cpu()
    await asyncio.gather(*[_reconnect(server, client, witnesses[client.run_id]) for client in clients])
    cpu = server.cpu() - cpu
    await asyncio.sleep(calm)
    async with asyncio.timeout(PATIENCE):
        for run_id in ids:
            await asyncio.to_thread(ask, server, "POST", f"/runs/{run_id}/cancel")
        await asyncio.gather(*[client.ended.wait() for client in (*clients, *witnesses.values())])
    return Storm(clients, began, cpu, missed)


async def _reconnect(server: Server, client: Client, witness: Client) -> None:
    await asyncio.sleep(random.uniform(0, STORM))
    client.asked, client.edge = time.perf_counter(), witness.last
    await connect(Connection(client), server)
    async with asyncio.timeout(PATIENCE):
        await client.again.wait()
