"""How long an answer stands still for its reader when the replica that writes it is killed, or asked to stop."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median

import uvloop

from benchmarks.cost import ENDLESS
from benchmarks.databases import database, replicas_on
from benchmarks.processes import Server, upstream
from benchmarks.report import Report, verdict
from benchmarks.streams import IDS, Reader, connect, follow, start_run
from benchmarks.tokens import MARK

LEASE = 10.0
"""Seconds, the service's default: what a kill may cost."""

HANDED_OVER = 1.0
"""Seconds that a stop may cost: the runs are handed back, and nobody has to wait for the lease."""

DRAIN = "1"
"""``DRAIN_SECONDS``: the answers go on for so long, which is no pause."""

RATE = 50.0
KNOCK = 0.02
"""Seconds between two tries to come back."""

PATIENCE = 60.0


def report(streams: int, rounds: int) -> Report:
    """Each round loses one of two new replicas in each way."""
    rows, notes = [], []
    for name, number, goal in (
        ("SIGKILL", signal.SIGKILL, LEASE),
        ("SIGTERM, as in a rolling restart", signal.SIGTERM, HANDED_OVER),
    ):
        pauses = sorted(pause for _ in range(rounds) for pause in _lose(number, streams))
        row = (name, len(pauses), *(f"{seconds:.2f}" for seconds in (pauses[0], median(pauses), pauses[-1])))
        rows.append(row)
        target = f"{name}: the next token within {goal:g} s for every reader"
        notes.append(verdict(target, pauses[-1] <= goal, f"{pauses[-1]:.2f} s"))
    return Report(
        name="replicas-takeover",
        title="From the last token of a replica that goes away to the next one, from another",
        columns=("how it goes", "readers", "shortest s", "median s", "longest s"),
        rows=rows,
        notes=(
            f"Rounds of two replicas, {rounds}; one writes {streams} answers of {RATE:g} tokens/s, and goes.",
            "Its readers come to the other one when their streams end; EventSource would wait as `retry:` says before.",
            f"LEASE_SECONDS is {LEASE:g}, its default, and DRAIN_SECONDS {DRAIN}.",
            *notes,
        ),
    )


def _lose(number: signal.Signals, streams: int) -> Sequence[float]:
    """Seconds that each reader has waited."""
    with upstream(RATE) as model, ExitStack() as stack:
        url = stack.enter_context(database())
        one, other = replicas_on(stack, 2, url, model, LEASE_SECONDS=str(LEASE), DRAIN_SECONDS=DRAIN)
        return uvloop.run(_readers(one, other, number, streams))


async def _readers(one: Server, other: Server, number: signal.Signals, streams: int) -> Sequence[float]:
    ids = [start_run(one, ENDLESS) for _ in range(streams)]
    readers = [await connect(Last(run_id), one) for run_id in ids]
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*[reader.first for reader in readers])
        os.kill(one.process.pid, number)
        return await asyncio.gather(*[_pause(reader, other) for reader in readers])


async def _pause(reader: "Last", other: Server) -> float:
    """Follow to the stream's end, and then on the other replica to the next token; the seconds between."""
    await reader.closed
    last, seq = reader.heard, reader.seq
    while True:
        again = Last(reader.run_id, seq)
        try:
            await asyncio.get_running_loop().create_connection(partial(_itself, again), "127.0.0.1", other.port)
        except OSError:
            await asyncio.sleep(KNOCK)
            continue
        await asyncio.wait([again.first, again.closed], return_when=asyncio.FIRST_COMPLETED)
        again.leave()
        if again.first.done():
            return again.heard - last
        seq = again.seq  # a stream may end before, where a replica sends its readers away
        await asyncio.sleep(KNOCK)


def _itself(reader: "Last") -> "Last":
    return reader


class Last(Reader):
    """Remembers when the last token came, and behind which event to go on. ``first`` is done with the first token."""

    def __init__(self, run_id: str, after: int | None = None) -> None:
        super().__init__(follow(run_id, after))
        self.opened.add_done_callback(lambda opened: opened.exception())  # a stream that is refused is tried again
        self.run_id = run_id
        self.seq = after or 0
        self.heard = 0.0
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rest = b""

    def received(self, data: bytes) -> None:
        whole, end, self._rest = (self._rest + data).rpartition(b"\n\n")
        data = whole + end
        for seq in IDS.findall(data):
            self.seq = int(seq)
        if MARK.search(data):
            self.heard = time.monotonic()
            if not self.first.done():
                self.first.set_result(None)
