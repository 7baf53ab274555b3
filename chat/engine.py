"""The engine: starts runs, lets anybody follow them, cancels them, and outlives every request."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from typing import Any

from chat.approvals import Approvals
from chat.commands import NewRetry, NewRun, Started
from chat.embedding import Embedding
from chat.embeddings import Embedder
from chat.errors import ChatError, StoreCorruptError, StoreUnavailableError
from chat.events import RunCancelled, RunCompleted, Terminal
from chat.following import Follower, Push
from chat.generation import Generation
from chat.importing import Importing
from chat.imports import NewImport
from chat.intake import Intake
from chat.journal import WINDOW, Journal
from chat.live import LiveRun, LiveRuns
from chat.memory import ANSWER_LIMIT, RUN_SECONDS, TAKEOVERS, Memory, MemoryPolicy
from chat.meter import NO_METER, Meter
from chat.policy import Policy
from chat.ports import ChatModel, Store
from chat.retrieval import Retrieval
from chat.room import size_of
from chat.runner import Runner
from chat.runs import Run, RunKind, RunStatus
from chat.sessions import Turn
from chat.steps import steps_of
from chat.tools import NO_TOOLS, Toolbox
from chat.tracing import NO_TRACER, Tracer
from chat.upkeep import Upkeep
from chat.usage import Prices

CANCEL_WAIT = 5.0
"""Seconds that a cancel waits for the run's end before it answers with the run as it is."""

DELETE_SESSIONS = 100
"""A user's sessions that are listed at once, to be deleted one by one."""

_THE_END = sys.maxsize
"""A cursor behind every event: following from it waits for the end alone."""


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``window``: group commit; ``lease``: until a silent owner's runs are taken; ``retention``: of logs;
    ``history``: of sessions in which nothing happens, None for ever."""

    window: float = WINDOW
    lease: float = 10.0
    retention: float = 24 * 3600.0
    history: float | None = None


class Engine:
    """Owns the tasks that generate answers; a client that goes away changes nothing."""

    def __init__(
        self,
        store: Store,
        model: ChatModel,
        policy: Policy,
        timing: Timing,
        tools: Toolbox = NO_TOOLS,
        *,
        memory: MemoryPolicy | None = None,
        prices: Prices | None = None,
        intake: Intake | None = None,
        meter: Meter = NO_METER,
        tracer: Tracer = NO_TRACER,
        embedder: Embedder | None = None,
    ) -> None:
        self.store = store
        self.model = model
        self.tools = tools
        self.tracer = tracer
        self.retrieval = Retrieval(store, embedder)
        self.draining = False
        self._journal = Journal(store, window=timing.window, meter=meter)
        self._live = LiveRuns(store)
        self._approvals = Approvals(store)
        self._memory = Memory(store, memory or MemoryPolicy(), policy.budgets, policy.system_prompt)
        answers = Generation(
            store, self._journal, model, policy, tools, self._approvals, meter, retrieval=self.retrieval
        )
        memories = Generation(store, self._journal, model, _beside(policy), meter=meter, messages=self._memory.messages)
        self._runner = Runner(
            store,
            self._journal,
            self._live,
            {
                RunKind.ANSWER: answers,
                RunKind.SUMMARY: memories,
                RunKind.TITLE: memories,
                RunKind.IMPORT: Importing(store, self._journal, intake),
            },
            on_end=self._run_ended,
            prices=prices,
            meter=meter,
            tracer=tracer,
        )
        self._upkeep = Upkeep(
            store,
            self._journal,
            self._live,
            self._runner,
            self._approvals,
            lease=timing.lease,
            retention=timing.retention,
            history=timing.history,
            expire=self._expire,
            embedding=None if embedder is None else Embedding(store, embedder),
        )
        self._background: set[asyncio.Task[Any]] = set()

    @property
    def generating(self) -> int:
        """How many runs this process generates at the moment."""
        return len(self._runner)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Generate and watch while inside; on the way out, hand back what has not ended."""
        loops = [asyncio.create_task(self._journal.run()), asyncio.create_task(self._upkeep.run())]
        try:
            yield
        finally:
            await self.drain(0)
            await self._runner.close()
            for task in (*loops, *self._background):
                task.cancel()
            await asyncio.gather(*loops, *self._background, return_exceptions=True)

    async def start(self, new: NewRun | NewRetry | NewImport) -> Started:
        """Store the message and its run, and begin to answer; or the files, and begin to import them.

        Raises:
            ChatError: ``draining``, and whatever :meth:`Store.start_run` raises.
        """
        if self.draining:
            raise ChatError("draining", "This process is shutting down; ask again in a moment.", retry_after=1)
        # A request may be cancelled when its run is stored but not yet generated by anybody.
        started: Started = await asyncio.shield(self._spawn(self._start(new)))
        return started

    async def follower(self, run_id: str, after: int, push: Push | None = None) -> Follower:
        """Somebody who reads what is committed behind ``after`` and what follows. To be closed.

        Raises:
            ChatError: ``not_found``.
        """
        return Follower(self.store, self._live, await self._live.join(run_id), run_id, after, push)

    async def result(self, run_id: str) -> Run:
        """The run when it has ended.

        Raises:
            ChatError: ``draining`` when it goes on elsewhere; ``not_found``, ``store_unavailable``.
        """
        run = await self._ended(run_id)
        if run.status.active:
            message = "This process is shutting down; the run goes on in another."
            raise ChatError("draining", message, details={"run_id": run_id}, retry_after=1)
        return run

    async def cancel(self, run_id: str, reason: str) -> Run:
        """Stop the run and close its upstream; the run as it is then. One that has ended stays as it is.

        Raises:
            ChatError: ``not_found``, ``store_unavailable``.
        """
        if not self._runner.stop(run_id, reason):
            run = await self.run(run_id)
            if not run.status.active:
                return run
            await self.store.request_cancel(run_id, reason)
            if (adopted := await self.store.adopt(run_id)) is not None:
                self._runner.end(adopted, RunCancelled(reason))
            else:
                self._runner.stop(run_id, reason)  # its turn may have come meanwhile, and here
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT):
                return await self._ended(run_id)
        return await self.run(run_id)

    async def approve(self, run_id: str, call_id: str, *, approved: bool) -> Run:
        """Say whether a call that waits for it may be made; the run.

        Raises:
            ChatError: ``not_found``, ``already_decided``, ``store_unavailable``.
        """
        await self.store.decide(run_id, call_id, approved=approved)
        self._approvals.tell(run_id, call_id, approved=approved)
        return await self.run(run_id)

    async def run(self, run_id: str) -> Run:
        """Raises ChatError ``not_found``."""
        run = await self.store.run(run_id)
        if run is None:
            raise ChatError("not_found", "There is no such run.")
        return run

    def at_hand(self, run_id: str) -> Run | None:
        """The run, if it is in memory."""
        live = self._live.owned(run_id)
        return None if live is None else live.run

    async def answer(self, run: Run) -> Turn:
        """The stored answer of a run that has ended."""
        return await self.store.turn(run.answer_id) or Turn("assistant", "")

    async def resumable(self, run_id: str, after: int) -> Run:
        """The run, if its log reaches to ``after``: a follower can go on from there without a gap.

        Raises:
            ChatError: ``not_found``; ``cursor_ahead`` of anything that was ever shown; ``cursor_expired``.
        """
        live = self._live.owned(run_id)
        if live is not None and not live.closed and after <= len(live.events):
            return live.run  # all that has to be known is in memory, when a thousand clients reconnect at once
        run = await self.run(run_id)
        if run.status.active:
            # What another process shows is committed, and may be a moment ahead of what is visible here.
            there = await self._logged(run_id, after)
        else:
            there = after <= run.last_seq
            await self.store.events(run_id, after, 1)
        if not there:
            raise ChatError("cursor_ahead", "This run has no such event; read the session's messages again.")
        return run

    async def _logged(self, run_id: str, seq: int) -> bool:
        return seq == 0 or bool((await self.store.events(run_id, seq - 1, 1)).events)

    async def delete_session(self, session_id: str) -> bool:
        """Cancel what the session is doing, then delete it; False if there is none."""
        while (run := await self.store.active_run(session_id, beside=True)) is not None:
            if (await self.cancel(run.id, "session_deleted")).status.active:
                break  # its owner does not answer, and will find the run gone
        return await self.store.delete_session(session_id)

    async def delete_user(self, user_id: str) -> bool:
        """Delete everything of the user, as :meth:`delete_session` does; False if there is nothing.

        Of what was used, only the name goes.
        """
        known = await self.store.knows_user(user_id)
        while sessions := (await self.store.sessions(user_id, DELETE_SESSIONS, None, beside=True)).items:
            for session in sessions:
                await self.delete_session(session.id)
        while await self.store.forget_user(user_id):
            pass
        return known

    async def drain(self, seconds: float) -> None:
        """Refuse new work, let running answers finish for so long, hand the rest back, end all streams.

        Runs that only wait for somebody's yes are handed back at once: that may take days.
        """
        self.draining = True
        self._upkeep.claiming = False
        self._approvals.put_off()
        try:
            await self._runner.finish(seconds)
        finally:
            self._live.close()

    async def _expire(self, session_id: str, idle: float) -> None:
        """Delete a session in which nothing has happened for so many seconds."""
        if await self.store.active_run(session_id, beside=True) is None:
            await self.store.delete_session(session_id, idle=idle)
        else:  # it waits for a yes, all that time
            await self.delete_session(session_id)

    async def _start(self, new: NewRun | NewRetry | NewImport) -> Started:
        match new:
            case NewRun():
                started = await self.store.start_run(new)
            case NewRetry():
                started = await self.store.retry_run(new)
            case _:
                started = await self.store.start_import(new)
        if started.created and started.run.status is RunStatus.RUNNING:
            self._runner.launch(started.run)
        if started.interrupts is not None:
            self._spawn(self._interrupt(started.interrupts))
        return started

    def _run_ended(self, live: LiveRun, terminal: Terminal) -> None:
        if live.run.kind is RunKind.ANSWER and isinstance(terminal, RunCompleted) and not self.draining:
            said = Turn("assistant", live.answer, steps_of(live.events)[0])
            if kinds := self._memory.wanted(live.run.model, live.sent + size_of(said)):
                self._spawn(self._remember(replace(live.run, terminal=terminal), kinds))

    async def _remember(self, answer: Run, kinds: Sequence[RunKind]) -> None:
        """Start what the session's memory is in need of."""
        try:
            for new in await self._memory.due(answer, kinds):
                if (run := await self.store.start_side_run(new)) is not None:
                    self._runner.launch(run)
        except (StoreUnavailableError, StoreCorruptError) as error:  # the next answer asks again
            logger.warning("no memory of this answer: %s", error.code, extra={"run_id": answer.id})

    async def _interrupt(self, run_id: str) -> None:
        try:
            await self.cancel(run_id, "interrupted_by_next_message")
        except ChatError as error:  # the message that interrupts waits then as one that queues
            logger.warning("could not interrupt: %s", error.code, extra={"run_id": run_id})

    async def _ended(self, run_id: str) -> Run:
        with closing(await self.follower(run_id, _THE_END)) as follower:
            await follower.next()
        return await self.run(run_id)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _beside(policy: Policy) -> Policy:
    """For runs that nobody waits for. They are not repeated: when the next answer has ended they are due again."""
    return replace(
        policy,
        retries=0,
        steps=1,
        answer_limit=ANSWER_LIMIT,
        run_seconds=min(policy.run_seconds, RUN_SECONDS),
        takeovers=TAKEOVERS,
        search_documents=False,
    )
