"""A checker in the manner of Jepsen: clients, several replicas, and all that can go wrong between them, at once.

    python -m tests.live.checker --seed 7 --minutes 10 --store postgres --replicas 3 [--recovery interrupt]

Clients say, repeat, retry and stop at random and leave at random; each writes down what it was told and shown. Replicas
are killed, frozen beyond their lease and restarted; the network to their clients and to the database is cut or falls
silent; the database restarts. In the end :mod:`tests.live.promises` holds the history against what is kept. The seed
draws what is said and what goes wrong when; how far the service has come by then is the machine's. Ends with 1 at the
first thing that does not fit, with the history of the run concerned.
"""

import argparse
import asyncio
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tests import postgres
from tests.live.cluster import Cluster, cluster
from tests.live.history import History
from tests.live.links import Link
from tests.live.nemesis import LEASE, Replica, torment
from tests.live.promises import Kept, check_accounts, check_acknowledged, check_journal, check_tree
from tests.live.service import PATIENCE, Service
from tests.live.witness import Account, Witness

CLIENTS = 6
ROOMS = 6
"""Sessions that all clients share at a time."""

ROUNDS = 8
"""What a client says before it moves on to other rooms."""

HURRY = 2.0
"""Seconds of silence after which a client tries another replica."""

WATCH_PAUSE = 0.2
"""Seconds between two looks at the journal, which is pruned every ten."""

NOT_THERE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, sqlite3.Error)
"""What it is to look into a database that restarts."""

WORDS = ("what", "was", "shown", "is", "kept", "and", "kept,", "once.", "été", "☕", "", "a\nline", "\n")


@dataclass(slots=True)
class System:
    """The service under test."""

    replicas: Sequence[Replica]
    cluster: Cluster | None

    async def look(self, sql: str) -> list[tuple[Any, ...]]:
        if self.cluster is not None:
            return await postgres.rows(self.cluster.url, sql)
        return self.replicas[0].service.rows(sql)

    async def heal(self) -> None:
        for replica in self.replicas:
            await replica.revive()
        for replica in self.replicas:
            await replica.service.until_up()


class Crowd:
    """The replicas as a load balancer shows them: another one for every request."""

    def __init__(self, clients: Sequence[httpx.AsyncClient], draw: random.Random) -> None:
        self._clients = clients
        self._draw = draw

    @property
    def client(self) -> httpx.AsyncClient:
        return self._draw.choice(self._clients)


@asynccontextmanager
async def system(folder: Path, store: str, count: int, recovery: str) -> AsyncIterator[System]:
    settings = {"STREAM_DELAY": "0.02", "LEASE_SECONDS": str(LEASE), "CRASH_RECOVERY": recovery, "SUMMARIES": "false"}
    settings |= {"PING_SECONDS": "0.5", "DRAIN_SECONDS": "0.3", "LOG_LEVEL": "WARNING"}
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(cluster(fsync="off")) if store == "postgres" else None
        replicas: list[Replica] = []
        for number in range(count):
            back = None
            if database is not None:
                back = await stack.enter_async_context(Link(database.port))
                settings["DATABASE_URL"] = database.url_by(back.port)
            (home := folder / f"replica{number}").mkdir()
            service = await stack.enter_async_context(Service(home, **settings))
            settings.setdefault("DATABASE_URL", service.settings["DATABASE_URL"])  # SQLite's file is the first one's
            front = await stack.enter_async_context(Link(service.port))
            replicas.append(Replica(f"replica {number}", service, front, back))
        yield System(replicas, database)


async def check(
    folder: Path,
    *,
    seed: int,
    store: str = "postgres",
    replicas: int = 3,
    recovery: str = "continue",
    faults: int = sys.maxsize,
    seconds: float = float("inf"),
) -> str:
    """Run it in the empty ``folder``; what happened, in a line. Raises AssertionError at what does not fit."""
    history, stop = History(), asyncio.Event()
    entries: list[tuple[int, str, int, str]] = []
    async with system(folder, store, replicas, recovery) as tested, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{replica.front.port}", timeout=HURRY)
            )
            for replica in tested.replicas
        ]
        witnesses = []
        for number in range(CLIENTS):
            draw = random.Random(f"{seed} witness {number}")
            witnesses.append(Witness(Crowd(clients, draw), draw, restless=0.02, history=history))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(tested, entries))
            saying = [
                group.create_task(converse(witness, random.Random(f"{seed} client {number}"), stop))
                for number, witness in enumerate(witnesses)
            ]
            suffered = await torment(
                tested.replicas, tested.cluster, seed=seed, faults=faults, seconds=seconds, history=history
            )
            await tested.heal()
            stop.set()
            async with asyncio.timeout(PATIENCE * 3):  # what was begun comes to its end, now that nothing goes wrong
                await asyncio.gather(*saying)
            watching.cancel()
        accounts = [account for witness in witnesses for account in witness.accounts]
        kept = await verify(tested, accounts, entries, recovery, history)
        statuses = Counter(run.status for run in kept.runs.values())
        return (
            f"seed {seed}, {store}, {replicas} replicas, {recovery}: {suffered} faults, {len(accounts)} requests by "
            f"{CLIENTS} clients ({sum(account.refused for account in accounts)} refused), {len(history.shown)} events "
            f"shown, {sum(run.epoch - 1 for run in kept.runs.values() if run.epoch)} takeovers; "
            + ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
        )


async def verify(
    tested: System,
    accounts: Sequence[Account],
    entries: Sequence[tuple[int, str, int, str]],
    recovery: str,
    history: History,
) -> Kept:
    async with asyncio.timeout(PATIENCE):
        # A request whose client was refused when it came a second time may have been begun, and nobody waits for it.
        while await tested.look("SELECT 1 FROM runs WHERE status IN ('queued', 'running') LIMIT 1"):  # noqa: ASYNC110
            await asyncio.sleep(WATCH_PAUSE)
    kept = await Kept.read(tested.look)
    await asyncio.to_thread(check_stored, kept, accounts, entries, history)
    services = [replica.service for replica in tested.replicas]
    await check_accounts(kept, accounts, services, recovery, history)
    sums = (await services[0].client.get("/usage?by=model")).json()["usage"]
    assert sum(item["output_tokens"] for item in sums) == sum(kept.used.values())
    return kept


def check_stored(
    kept: Kept, accounts: Sequence[Account], entries: Sequence[tuple[int, str, int, str]], history: History
) -> None:
    """What can be told without the services. It takes seconds, in which this process's links have to go on."""
    check_acknowledged(kept, accounts)
    check_tree(kept, accounts)
    check_journal(kept, accounts, entries, history)


async def watch(tested: System, entries: list[tuple[int, str, int, str]]) -> None:
    """Read the journal along, from outside, until cancelled."""
    while True:
        after = entries[-1][0] if entries else 0
        with suppress(*NOT_THERE):
            found = await tested.look(f"SELECT pos, run_id, seq, name FROM journal WHERE pos > {after} ORDER BY pos")
            entries += [(pos, run_id, seq, name) for pos, run_id, seq, name in found]
        await asyncio.sleep(WATCH_PAUSE)


async def converse(witness: Witness, draw: random.Random, stop: asyncio.Event) -> None:
    """Say one thing after the other, some at once, in rooms where others do, too."""
    rounds = 0
    while not stop.is_set():
        room = f"room-{rounds // ROUNDS}-{draw.randrange(ROOMS)}"
        rounds += 1
        async with asyncio.TaskGroup() as group:
            for _ in range(draw.choice((1, 1, 1, 3))):
                group.create_task(one(witness, random.Random(draw.random()), room))


async def one(witness: Witness, draw: random.Random, room: str) -> None:
    """Say something, perhaps stop it, perhaps send it again by another connection, perhaps ask for another answer."""
    body: dict[str, Any] = {"format": draw.choice(("text", "events"))}
    body["on_busy"] = draw.choices(("queue", "reject", "interrupt"), (8, 1, 1))[0]
    said = " ".join(draw.choices(WORDS, k=draw.randint(1, 40))) + f" {draw.getrandbits(64):016x}"
    stop_after = draw.uniform(0, 1) if draw.random() < 0.1 else None
    account = await witness.ask(message=said, session_id=room, stop_after=stop_after, **body)
    if account.refused:
        return
    if draw.random() < 0.3:
        await witness.ask_again(account)
    if draw.random() < 0.1:
        await witness.ask(path=f"/runs/{account.run_id}/retry", stop_after=stop_after, **body)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--store", choices=("sqlite", "postgres"), default="postgres")
    options.add_argument("--replicas", type=int, default=3)
    options.add_argument("--recovery", choices=("continue", "interrupt"), default="continue")
    chosen = vars(options.parse_args())
    sys.stdout.write(f"seed {chosen['seed']}\n")
    sys.stdout.flush()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="checker-") as folder:
        summary = asyncio.run(check(Path(folder), seconds=chosen.pop("minutes") * 60, **chosen))
    sys.stdout.write(f"{summary}; all of it fits ({time.monotonic() - began:.0f} s)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
