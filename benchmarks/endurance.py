"""A day's load in short: very many short runs, and whether memory, descriptors, threads and tasks stay flat.

``ENDURANCE_RUNS`` (1,000,000) and ``ENDURANCE_MINUTES`` (60) say how far it goes, whichever comes first.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.processes import Server, parley
from benchmarks.report import Report, verdict
from benchmarks.streams import PATIENCE, Reader, Whole, connect, raise_descriptor_limit, request

RUNS = int(os.environ.get("ENDURANCE_RUNS", "1000000"))
MINUTES = float(os.environ.get("ENDURANCE_MINUTES", "60"))

CLIENTS = 32
"""That ask at the same time, each one thing after another."""

RETENTION = 5.0
"""Seconds that a finished run's events are kept: it is folded soon, and late followers get the stored text."""

REST = 12.0
"""Seconds before the last look: the longest pause of the service's own upkeep, and a bit."""

GROWTH = 0.05
"""How much more memory the last quarter may use than the first, as a part of it."""

SWING = 8
"""Descriptors, threads or tasks more or less are only the moment of the look: every client has a connection."""

MIX = {"read": 50, "leave": 15, "async": 15, "late": 10, "cancel": 10}
"""Percent of what is asked: read to the end; leave in the middle; start and not look; start, then follow; cancel."""

SHORT = b"Hello there"
LONG = b"and so on " * 100


def run(*, short: bool) -> Report:
    raise_descriptor_limit()
    runs, minutes = (2_000, 1.0) if short else (RUNS, MINUTES)
    with TemporaryDirectory() as name:
        folder = Path(name)
        settings = {
            "STREAM_DELAY": "0",
            "EVENT_RETENTION": f"{1.0 if short else RETENTION}",
            "TASKS_FILE": str(folder / "tasks"),
        }
        with parley(folder, program=("-m", "benchmarks.watched"), **settings) as server:
            watch = Watch(server, folder)
            load = Load(server, runs, time.monotonic() + minutes * 60)
            uvloop.run(_endure(load, watch, 3.0 if short else REST))
    return _report(load, watch)


# --- the load --------------------------------------------------------------------------------------------------


class Answer(Reader):
    """Any answer, whole, when the connection is closed behind it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.raw = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.opened.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.raw += data


@dataclass(slots=True)
class Load:
    """``end``: when it stops at the latest, on the monotonic clock."""

    server: Server
    runs: int
    end: float
    started: int = 0
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def over(self) -> bool:
        return self.started >= self.runs or time.monotonic() > self.end

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """One request on a connection of its own; what answers it."""
        content = request(method, path, body, {"Connection": "close", **headers})
        async with asyncio.timeout(PATIENCE):
            answer = await connect(Answer(content), self.server)
            await answer.closed
        head, _, body = bytes(answer.raw).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(answer.raw[:300].decode(errors="replace"))
        return body

    async def chat(self, session: str, what: str) -> None:
        """Start one run, in one of the ways of ``MIX``."""
        text = LONG if what in ("leave", "cancel") else SHORT
        body = b'{"session_id":"%b","on_busy":"queue","message":"%b"}' % (session.encode(), text)
        if what == "read":
            if b"data: [DONE]" not in await self.ask("POST", "/chat", body):
                raise RuntimeError("an answer broke off")
        elif what == "leave":
            reader = await connect(Whole(request("POST", "/chat", body)), self.server)
            reader.leave()
            await reader.closed
        else:
            run_id = json.loads(await self.ask("POST", "/chat", body, Prefer="respond-async"))["run_id"]
            if what == "late":
                await self.ask("GET", f"/runs/{run_id}/events")
            elif what == "cancel":
                await self.ask("POST", f"/runs/{run_id}/cancel")


async def _client(load: Load, number: int) -> None:
    """One conversation after another; every second one is deleted when it is over."""
    conversation = 0
    while not load.over:
        conversation += 1
        session = f"s{number}-{conversation}"
        for _ in range(random.randint(1, 12)):
            if load.over:
                break
            load.started += 1
            what = random.choices(list(MIX), list(MIX.values()))[0]
            try:
                await load.chat(session, what)
            except (OSError, RuntimeError, TimeoutError) as error:
                load.refused[f"{what}: {str(error)[:200] or type(error).__name__}"] += 1
            else:
                load.done[what] += 1
        if conversation % 2:
            await load.ask("DELETE", f"/sessions/{session}")


async def _endure(load: Load, watch: "Watch", rest: float) -> None:
    watch.looks.append(await watch.look(load))
    watching = asyncio.create_task(watch.run(load))
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(_client(load, number))
    watch.seconds = time.monotonic() - began
    watching.cancel()
    await asyncio.sleep(rest)
    watch.rest = rest
    watch.rested = await watch.look(load)


# --- what it does to the process -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """``memory`` and ``file`` in bytes."""

    runs: int
    memory: int
    descriptors: int
    threads: int
    tasks: int
    file: int


class Watch:
    """Looks at the process every now and then."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.seconds = self.rest = 0.0
        self.looks: list[Look] = []
        self.rested: Look
        self._server = server
        self._folder = folder

    async def run(self, load: Load) -> None:
        while True:
            await asyncio.sleep(min(0.2 + self.looks[-1].runs / 10_000, 10))
            self.looks.append(await self.look(load))

    async def look(self, load: Load) -> Look:
        server, tasks = self._server, self._folder / "tasks"
        tasks.unlink(missing_ok=True)
        os.kill(server.process.pid, signal.SIGUSR2)
        async with asyncio.timeout(PATIENCE):
            while not (tasks.exists() and tasks.read_text()):  # noqa: ASYNC110  # another process writes it
                await asyncio.sleep(0.01)
        return Look(
            load.started,
            server.rss(),
            server.descriptors(),
            server.threads(),
            int(tasks.read_text()),
            sum(file.stat().st_size for file in self._folder.glob("parley.db*")),
        )


def _report(load: Load, watch: Watch) -> Report:
    idle, rested = watch.looks[0], watch.rested
    early = _middle([look for look in watch.looks if 0 < look.runs <= load.started / 4])
    late = _middle([look for look in watch.looks if look.runs > load.started * 3 / 4])
    looks = {"before": idle, "first quarter": early, "last quarter": late, "at rest again": rested}
    grown = late.memory / early.memory - 1
    flat = {
        name: getattr(late, name) <= getattr(early, name) + SWING and getattr(rested, name) <= getattr(idle, name) + 2
        for name in ("descriptors", "threads", "tasks")
    }
    done = ", ".join(f"{count:,} {what}" for what, count in load.done.most_common())
    pace = f"{load.started:,} runs in {watch.seconds / 60:.1f} minutes, {load.started / watch.seconds:.0f} a second"
    return Report(
        name="endurance",
        title="Endurance",
        columns=("when", "MB", "descriptors", "threads", "tasks", "database MB"),
        rows=[
            (name, f"{look.memory / 1e6:.1f}", look.descriptors, look.threads, look.tasks, f"{look.file / 1e6:.1f}")
            for name, look in looks.items()
        ],
        notes=(
            f"{pace}, by {CLIENTS} clients: {done}. {len(watch.looks)} looks, and one {watch.rest:g} s later.",
            verdict("none refused, none broken off", not load.refused, str(dict(load.refused.most_common(3)) or "0")),
            verdict("memory flat", grown <= GROWTH, f"{grown:+.1%} from the first quarter to the last"),
            *[verdict(f"{name} flat", good, "while loaded and at rest") for name, good in flat.items()],
        ),
    )


def _middle(looks: Sequence[Look]) -> Look:
    """The median of each figure."""
    return Look(*[int(median(getattr(look, one.name) for look in looks)) for one in fields(Look)])
