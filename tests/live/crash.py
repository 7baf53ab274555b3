"""Kill the service at random moments, again and again, and hold what its clients saw against what it kept.

    python -m tests.live.crash --kills 100 --seed 7 [--recovery interrupt] [--workers 2]

Prints what it did and ends with 1 at the first thing that does not fit. The seed draws what is said and when is
killed; how far the service has come by then is the machine's.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.live.checks import check_run
from tests.live.service import Service
from tests.live.witness import Account, Witness
from tests.live.workers import worker_ids

CLIENTS = 6
LONGEST_LIFE = 1.5
"""Seconds from the start of a process to its end at most: about a third of the kills hit it before it serves."""

RESTARTS = 5
TABLES = ("sessions", "messages", "runs", "log_pages", "claims")
WORDS = ("what", "was", "shown", "is", "kept", "and", "kept,", "once.", "été", "☕", "", "a\nline", "\n")


async def crash(folder: Path, *, kills: int, seed: int, recovery: str = "continue", workers: int = 1) -> str:
    """Run it in the empty ``folder``; a summary of what happened. Raises AssertionError at what does not fit."""
    draw = random.Random(seed)
    settings = {"STREAM_DELAY": "0.01", "CRASH_RECOVERY": recovery, "WORKERS": str(workers), "LEASE_SECONDS": "1"}
    async with Service(folder, **settings) as service:
        stop = asyncio.Event()
        witnesses = [Witness(service, random.Random(draw.random()), restless=0.02) for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            for number, witness in enumerate(witnesses):
                group.create_task(converse(witness, f"client-{number}", random.Random(draw.random()), stop))
            unready = 0
            for _ in range(kills):
                unready += not await live_and_die(service, draw, workers)
            await service.restart()
            stop.set()  # what is being said is answered yet
        accounts = [account for witness in witnesses for account in witness.accounts]
        runs = await verify(service, accounts, recovery)
        await unchanged_by_restarts(service)
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(runs.items()))
        frames = sum(len(account.seen) for account in accounts)
        seams = service.rows("SELECT sum(epoch - 1) FROM runs WHERE epoch > 1")[0][0] or 0
        return (
            f"seed {seed}, {recovery}, {workers} workers: {kills} kills ({unready} before it was ready), "
            f"{len(accounts)} messages by {CLIENTS} clients, {frames} frames, {seams} takeovers; {statuses}"
        )


async def live_and_die(service: Service, draw: random.Random, workers: int) -> bool:
    """Start the service and kill it, or one of its workers and then it; whether it had come to serve."""
    deadline = asyncio.get_running_loop().time() + draw.uniform(0.02, LONGEST_LIFE)
    if service.process is None or service.process.returncode is not None:
        await service.spawn()
    ready = False
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            await service.until_up()
            ready = True
            await asyncio.Event().wait()
    if workers > 1 and draw.random() < 0.7 and (alive := worker_ids(service)):
        with suppress(ProcessLookupError):
            os.kill(draw.choice(alive), signal.SIGKILL)
    else:
        await service.kill()
    return ready


async def converse(witness: Witness, name: str, draw: random.Random, stop: asyncio.Event) -> None:
    """Say one thing after the other, now and then three at once, now and then with a stop."""
    rounds = 0
    while not stop.is_set():
        rounds += 1
        formats = random.Random(draw.random())
        body: dict[str, Any] = {"session_id": f"{name}-{rounds // 10}", "on_busy": "queue"}
        count = 3 if draw.random() < 0.2 else 1
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                said = " ".join(draw.choices(WORDS, k=draw.randint(1, 60))) + f" {draw.getrandbits(64):016x}"
                wanted = formats.choice(("text", "events"))
                group.create_task(witness.ask(message=said, format=wanted, **body))
        if draw.random() < 0.1:
            await witness.ask(stop_after=draw.uniform(0, 0.5), message=f"{said} and on", **body)


async def verify(service: Service, accounts: list[Account], recovery: str) -> Counter[str]:
    """Hold what was seen against what is stored; how many runs ended how."""
    assert service.rows("SELECT id FROM runs WHERE status IN ('queued', 'running')") == []
    assert service.rows("SELECT run_id, seq FROM journal GROUP BY run_id, seq HAVING count(*) > 1") == []
    stored = service.rows("SELECT claims.key, runs.id FROM claims JOIN runs ON runs.id = claims.run_id")
    assert sorted(stored) == sorted((account.key, account.run_id) for account in accounts)
    assert service.rows("SELECT count(*) FROM runs") == [(len(accounts),)]
    said = Counter(content for (content,) in service.rows("SELECT content FROM messages WHERE role = 'user'"))
    assert said == Counter(account.body["message"] for account in accounts)
    outcomes: Counter[str] = Counter()
    for account in accounts:
        run = await check_run(service, account.run_id)
        _, *log = await service.follow(account.run_id, format=account.body["format"])
        assert account.seen == log, f"{account.run_id}: what was seen is not what is stored"
        answer, message = await service.answer(account.run_id), account.body["message"]
        assert message.startswith(answer)
        if run["status"] == "completed":
            assert answer == message
        elif run["status"] == "cancelled":
            assert account.stop_asked
        else:
            # An answer that was given up on for good: its process died, and died again, more than eight times.
            assert run["status"] == "interrupted"
            assert recovery == "interrupt" or service.rows("SELECT epoch FROM runs WHERE id = ?", run["run_id"]) > [
                (8,)
            ]
        assert not account.stopped or run["status"] == "cancelled"
        outcomes[run["status"]] += 1
    return outcomes


async def unchanged_by_restarts(service: Service) -> None:
    """Kill and start it some times more, now that there is nothing to do: no table changes."""
    before = dump(service)
    for _ in range(RESTARTS):
        await service.restart()
        assert dump(service) == before


def dump(service: Service) -> dict[str, list[tuple[object, ...]]]:
    return {table: service.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    options.add_argument("--recovery", choices=("continue", "interrupt"), default="continue")
    options.add_argument("--workers", type=int, default=1)
    chosen = options.parse_args()
    sys.stdout.write(f"seed {chosen.seed}\n")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        summary = asyncio.run(crash(Path(folder), **vars(chosen)))
    sys.stdout.write(f"{summary}; all of it fits ({time.monotonic() - began:.0f} s)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
