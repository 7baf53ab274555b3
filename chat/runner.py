"""The tasks that generate answers. They belong to the process and not to a request."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any, Protocol, TypeAlias

from chat.errors import ChatError, StoreCorruptError, StoreUnavailableError
from chat.events import RunCancelled, RunFailed, RunInterrupted, Terminal
from chat.journal import Journal
from chat.live import LiveRun, LiveRuns
from chat.meter import NO_METER, Meter
from chat.patience import patiently
from chat.ports import Store
from chat.runs import STATUS_OF, Run, RunKind
from chat.spending import total_of
from chat.tracing import NO_TRACER, RunSpan, Tracer
from chat.usage import Prices, priced

SETTLE_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between the tries to settle a run whose log cannot be written; the last one repeats."""

SETTLE_WAIT = 5.0
"""Seconds that a shutdown waits for ends that are being stored."""

_NOT_STORED = RunFailed("store_unavailable", "The answer could not be stored and was stopped.", retryable=True)
_INTERNAL = RunFailed("internal", "Internal error", retryable=True)
_CRASHED = RunInterrupted("The process that wrote this answer died.")


class Generates(Protocol):
    """What makes runs of some kinds: :class:`chat.generation.Generation`, which see, for answers."""

    def resume(self, live: LiveRun, theirs: Collection[str] = ..., /) -> bool: ...

    async def generate(self, live: LiveRun) -> Terminal | None: ...

    def leave(self, live: LiveRun) -> None: ...

    async def complete(self, live: LiveRun) -> None: ...


_Generate: TypeAlias = Callable[[LiveRun], Coroutine[Any, Any, Terminal | None]]

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Job:
    """``generating`` may be cancelled at any moment, even before its first step; ``task`` sees to the end.

    ``put_off``: the run waits for somebody's yes, and is being given to another process that will hear of it.
    """

    live: LiveRun
    span: RunSpan
    generating: asyncio.Task[Terminal | None]
    task: asyncio.Task[None] | None = None
    stop_reason: str | None = None
    put_off: bool = False


class Runner:
    """Launches runs, stops them, and settles each exactly once.

    ``on_end`` is called when the end of a run is stored that this process has generated.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        live: LiveRuns,
        generations: Mapping[RunKind, Generates],
        *,
        on_end: Callable[[LiveRun, Terminal], object],
        prices: Prices | None = None,
        meter: Meter = NO_METER,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._store = store
        self._journal = journal
        self._live = live
        self._generations = generations
        self._prices = prices or {}
        self._meter = meter
        self._tracer = tracer
        self._on_end = on_end
        self._jobs: dict[str, _Job] = {}
        self._finishing = False

    def __len__(self) -> int:
        """How many runs this process has."""
        return len(self._jobs)

    def launch(self, run: Run) -> None:
        """Generate the run's answer, or what is missing of it."""
        self._begin(run, self._generate)

    def end(self, run: Run, terminal: Terminal) -> None:
        """Settle a run that is not to be generated at all."""

        async def ended(_: LiveRun) -> Terminal | None:
            return terminal

        self._begin(run, ended)

    def stop(self, run_id: str, reason: str) -> bool:
        """Ask one of this process's runs to end as cancelled; False if it is not one.

        A run that is ending already ends as it was about to.
        """
        job = self._jobs.get(run_id)
        if job is None or job.put_off:
            return False
        if job.stop_reason is None:
            job.stop_reason = reason
            job.generating.cancel()
        return True

    async def finish(self, seconds: float) -> None:
        """Let the running answers come to their end for so long, then hand the rest back: nobody waits for it."""
        self._finishing = True
        answering = [job.generating for job in self._jobs.values() if job.live.run.kind is RunKind.ANSWER]
        if answering:
            await asyncio.wait(answering, timeout=seconds)
        for job in self._jobs.values():
            job.generating.cancel()
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=SETTLE_WAIT)
        await self._journal.flush()
        try:
            await self._store.hand_back()
        except (StoreUnavailableError, StoreCorruptError) as error:  # the next start finds this process dead
            logger.warning("could not hand the runs back: %s", error.code)

    async def close(self) -> None:
        """Stop trying to settle what cannot be settled: the next start will."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, run: Run, generate: _Generate) -> None:
        live = self._live.own(run)
        live.span = self._tracer.run(run)
        # Every token climbs through all coroutines that wait for it: no further one where nobody looks.
        generating = self._counted(live, generate) if live.span.recording else generate(live)
        job = _Job(live, live.span, asyncio.create_task(generating))
        live.on_trouble = job.generating.cancel
        self._jobs[run.id] = job
        job.task = asyncio.create_task(self._see_through(job))

    async def _counted(self, live: LiveRun, generate: _Generate) -> Terminal | None:
        with suppress(StoreUnavailableError, StoreCorruptError):  # the run itself will find out
            if (session := await self._store.session(live.run.session_id)) is not None:
                live.span.counted(session.message_count)
        return await generate(live)

    async def _generate(self, live: LiveRun) -> Terminal | None:
        generation = self._generations[live.run.kind]
        if live.run.epoch > 1:
            await patiently(lambda: self._live.load(live), live.run.id)
            terms = await patiently(lambda: self._store.terms(live.run.id), live.run.id)
            if not generation.resume(live, {spec.name for spec in terms.tools}):
                return _CRASHED
        return await generation.generate(live)

    async def _see_through(self, job: _Job) -> None:
        ended: Terminal | None = None
        try:
            await asyncio.wait({job.generating})
            while self._waits_on(job):
                job.generating = asyncio.create_task(self._when_there_again(job.live))
                job.live.on_trouble = job.generating.cancel
                await asyncio.wait({job.generating})
            terminal = self._terminal(job)
            if terminal is None and job.live.owned:
                if job.generating.cancelled() or job.generating.exception() is not None:
                    self._generations[job.live.run.kind].leave(job.live)
                else:
                    job.put_off = True
                    await self._give_away(job.live)
            elif terminal is not None and (ended := await self._settle(job.live, terminal)) is not None:
                logger.info("run ended", extra={"run_id": job.live.run.id, "outcome": type(terminal).__name__})
                self._on_end(job.live, ended)
        finally:
            job.generating.cancel()
            job.span.end(ended)
            if self._jobs.get(job.live.run.id) is job:
                del self._jobs[job.live.run.id]
            if job.live.closed:
                self._live.drop(job.live)

    def _waits_on(self, job: _Job) -> bool:
        """Whether the run is only to wait for the store."""
        return _can_wait(job) and job.live.owned and job.stop_reason is None and not self._finishing

    async def _when_there_again(self, live: LiveRun) -> Terminal | None:
        """Generate what is missing, as soon as the store can be reached."""
        logger.warning("a run waits for the store, as long as it takes", extra={"run_id": live.run.id})
        pauses = chain(SETTLE_PAUSES, repeat(SETTLE_PAUSES[-1]))
        while True:
            await asyncio.sleep(next(pauses))
            with suppress(StoreUnavailableError):
                await self._journal.recover(live)
                return await self._generate(live)

    def _terminal(self, job: _Job) -> Terminal | None:
        """How the generation ended; None if the run goes on elsewhere."""
        if not job.live.owned:
            return None
        if _can_wait(job):
            return None if job.stop_reason is None else RunCancelled(job.stop_reason)
        if job.generating.cancelled():
            if job.stop_reason is not None:
                return RunCancelled(job.stop_reason)
            if job.live.trouble is not None:
                return _NOT_STORED
            return None if self._finishing else _INTERNAL
        error = job.generating.exception()
        if error is None:
            put_off = job.generating.result() is None
            return RunCancelled(job.stop_reason) if put_off and job.stop_reason else job.generating.result()
        if isinstance(error, ChatError):
            return _NOT_STORED
        logger.error("a generation broke", exc_info=error, extra={"run_id": job.live.run.id})
        return _INTERNAL

    async def _give_away(self, live: LiveRun) -> None:
        try:
            await self._store.release(live.run.id)
            logger.info("handed a run over that waits for a yes", extra={"run_id": live.run.id})
        except (StoreUnavailableError, StoreCorruptError) as error:  # it goes with all others, at the end
            logger.warning("could not hand a run back: %s", error.code)
        live.lose()

    async def _settle(self, live: LiveRun, terminal: Terminal) -> Terminal | None:
        """Store the run's end: the event as it stands in the log, None if the run is another process's by now."""
        pauses = chain(SETTLE_PAUSES, repeat(SETTLE_PAUSES[-1]))
        while True:
            try:
                if not live.whole:  # stopped before it was read: what is stored of it is the answer's beginning
                    await self._live.load(live)
                await self._complete(live)
                shares = live.spending.shares(live.said)
                live.shares, usage = priced(shares, self._prices), total_of(shares)
                ended = replace(terminal, usage=usage)
                if not await self._journal.settle(live, ended):
                    return None
                self._meter.run_ended(STATUS_OF[type(ended)], usage)
                return ended
            except (StoreUnavailableError, StoreCorruptError) as error:
                logger.warning("a run's end waits for the store: %s", error.code, extra={"run_id": live.run.id})
                await asyncio.sleep(next(pauses))

    async def _complete(self, live: LiveRun) -> None:
        """What made the generation break may do so again here; then what only earlier owners knew is left out."""
        try:
            await self._generations[live.run.kind].complete(live)
        except (StoreUnavailableError, StoreCorruptError):
            raise
        except Exception:
            logger.exception("what a run's end lacks could not be added", extra={"run_id": live.run.id})


def _can_wait(job: _Job) -> bool:
    """Whether the generation has ended for want of the store alone, and can go on when that is there again.

    All that an import needs is stored; what a model goes on saying is not.
    """
    missing = job.live.trouble if job.generating.cancelled() else job.generating.exception()
    return job.live.run.kind is RunKind.IMPORT and isinstance(missing, StoreUnavailableError)
