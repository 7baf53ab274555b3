"""Whatever goes wrong around the service. What, when and for how long is the seed's choice."""

import asyncio
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from tests.live.cluster import Cluster
from tests.live.history import History
from tests.live.links import Link
from tests.live.service import Service

LEASE = 1.0
"""Seconds."""

PROCESS = ("kill", "kill", "freeze", "freeze", "terminate")
CLIENTS = ("cut_clients", "silence_clients")
DATABASE = ("cut_database", "silence_database", "silence_database")
LASTS = {
    "kill": (0.02, 1.5),
    "freeze": (0.5 * LEASE, 3 * LEASE),
    "cut_database": (0.02, 3 * LEASE),
    "silence_database": (LEASE, 4 * LEASE),
}
"""Seconds that a fault lasts: what only takes a lease away lasts longer than one, most of the time."""

BRIEF = (0.02, 1.0)
"""The same of all others."""

STILL = 3.0
"""Seconds between two faults of a lane at most; work has to be done, too, for something to be lost."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``after`` and ``lasts`` are in seconds."""

    kind: str
    after: float
    lasts: float


def schedule(seed: int, lane: str, kinds: Sequence[str]) -> Iterator[Fault]:
    """The faults of one lane, one behind the other, without an end."""
    draw = random.Random(f"{seed} {lane}")
    while True:
        kind = draw.choice(kinds)
        yield Fault(kind, draw.uniform(0, STILL), draw.uniform(*LASTS.get(kind, BRIEF)))


@dataclass(frozen=True, slots=True)
class Replica:
    """A service, the network in front of it, and that behind it, if there is any."""

    name: str
    service: Service
    front: Link
    back: Link | None

    async def suffer(self, fault: Fault) -> None:
        service = self.service
        match fault.kind:
            case "kill":
                await service.kill()
                await asyncio.sleep(fault.lasts)
            case "terminate":
                if service.process is not None and service.process.returncode is None:
                    service.send_signal(signal.SIGTERM)
                    await service.exit()
            case "freeze":
                if service.process is not None and service.process.returncode is None:
                    service.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(fault.lasts)
                    service.send_signal(signal.SIGCONT)
            case _:
                how, _, where = fault.kind.partition("_")
                link = self.front if where == "clients" else self.back
                assert link is not None
                await _disturb(link, how, fault.lasts)
        await self.revive()

    async def revive(self) -> None:
        """Start the process if it has ended, as whatever watches over it would; it does so without a database, too."""
        if self.service.process is None or self.service.process.returncode is not None:
            await self.service.spawn()


async def _disturb(link: Link, how: str, seconds: float) -> None:
    if how == "cut":
        link.cut()
    else:
        link.silence()
    await asyncio.sleep(seconds)
    link.heal()


async def torment(
    replicas: Sequence[Replica], cluster: Cluster | None, *, seed: int, faults: int, seconds: float, history: History
) -> int:
    """Every lane's first ``faults`` faults, or as many as begin within ``seconds``; how many there were."""
    deadline = asyncio.get_running_loop().time() + seconds
    total = 0

    async def lane(name: str, kinds: Sequence[str], replica: Replica | None) -> None:
        nonlocal total
        for fault in islice(schedule(seed, name, kinds), faults):
            if asyncio.get_running_loop().time() + fault.after > deadline:
                return
            await asyncio.sleep(fault.after)
            history.tell("info", f"{name}: {fault.kind} for {fault.lasts:.2f} s")
            total += 1
            if replica is not None:
                await replica.suffer(fault)
            else:
                assert cluster is not None
                await cluster.stop()
                await asyncio.sleep(fault.lasts)
                await cluster.start()
            history.tell("info", f"{name}: {fault.kind} is over")

    async with asyncio.TaskGroup() as group:
        for replica in replicas:
            kinds = (*PROCESS, *CLIENTS, *(DATABASE if replica.back is not None else ()))
            group.create_task(lane(replica.name, kinds, replica))
        if cluster is not None:
            group.create_task(lane("database", ("restart",), None))
    return total
