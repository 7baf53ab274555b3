"""A store that keeps logs in memory and nothing else, for what is built on logs."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path

from chat.commits import Append, Batch, Committed, Tail
from chat.errors import ChatError
from chat.events import Event, Terminal, TextDelta, answer_text
from chat.runs import Run, RunStatus
from tests.scripted import UnsteadyStore


class Ledger(UnsteadyStore):
    """What is read or written in the tests is in plain sight.

    ``lost`` are the runs that another process has taken; ``waiting`` is what every end reports. Reads wait for
    ``reads``, tails for ``tails``. Of the order of all events, ``pruned`` are gone; of the logs, those that are
    ``folded``.
    """

    def __init__(self, *runs: Run) -> None:
        super().__init__(Path("never-opened"))
        self.runs = {run.id: run for run in runs}
        self.logs: dict[str, list[Event]] = {}
        self.order: list[tuple[str, int, Event]] = []
        self.lost: set[str] = set()
        self.waiting = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.reading = asyncio.Event()
        self.tails = asyncio.Event()
        self.tails.set()
        self.tailing = asyncio.Event()
        self.read_fault: Exception | None = None
        self.pruned = 0
        self.folded: set[str] = set()

    def say(self, run_id: str, *events: Event) -> None:
        """Commit as another process does."""
        log = self.logs.setdefault(run_id, [])
        for event in events:
            log.append(event)
            self.order.append((run_id, len(log), event))

    async def write(self, batch: Sequence[Append]) -> Committed:
        for append in batch:
            if append.run.id in self.lost:
                continue
            log = self.logs.get(append.run.id, [])
            assert append.first_seq == len(log) + 1
            assert append.events
            assert not any(isinstance(event, Terminal) for event in [*log, *append.events[:-1]])
            self.say(append.run.id, *append.events)
            if append.settlement is not None:
                assert append.settlement.log == self.logs[append.run.id]
                assert append.settlement.terminal is append.events[-1]
        ends = any(append.settlement is not None for append in batch)
        return Committed(frozenset(self.lost & {append.run.id for append in batch}), ends and self.waiting)

    async def run(self, run_id: str) -> Run | None:
        return self.runs.get(run_id)

    async def events(self, run_id: str, after: int, limit: int) -> Batch:
        self.reading.set()
        await self.reads.wait()
        if self.read_fault is not None:
            raise self.read_fault
        log = self.logs.get(run_id, [])
        if run_id in self.folded and after < len(log) - 1:
            if after:
                raise ChatError("cursor_expired", "Gone")
            return Batch(len(log) - 1, [TextDelta(answer_text(log)), log[-1]])
        return Batch(after + 1, log[after : after + limit], last=after + limit >= len(log))

    async def position(self) -> int:
        position = len(self.order)
        self.reading.set()
        await self.reads.wait()
        return position

    async def tail(self, after: int, run_ids: Collection[str]) -> Tail:
        self.tailing.set()
        await self.tails.wait()
        start = max(after, self.pruned)
        found = [(pos, entry) for pos, entry in enumerate(self.order[start:], start + 1) if entry[0] in run_ids][:3]
        more = len(found) == 3
        pos = found[-1][0] if more else max(after, len(self.order))
        return Tail(pos, [entry for _, entry in found], complete=self.pruned <= after, more=more)


def running(run_id: str = "run_1", epoch: int = 1, status: RunStatus = RunStatus.RUNNING) -> Run:
    return Run(run_id, "ses_1", "ann", "msg_1", "msg_2", status, "scripted", 1, epoch, 0, 0)
