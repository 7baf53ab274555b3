"""One run's generation: what the model is asked, what it says, and how that ends."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import takewhile
from typing import TypeAlias

from chat.approvals import Approvals
from chat.context import Context
from chat.errors import ModelError
from chat.events import (
    ModelSelected,
    RunFailed,
    Seam,
    Source,
    Terminal,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolFinished,
    ToolStarted,
    completed,
)
from chat.hearing import Hearing
from chat.journal import Journal
from chat.live import LiveRun
from chat.meter import NO_METER, Meter
from chat.patience import patiently
from chat.policy import CrashRecovery, OverLimitError, Policy
from chat.ports import ChatModel, ModelRequest, Store
from chat.quotations import Quotations, quotation, quoted_in
from chat.retrieval import Retrieval
from chat.room import fitted_request, size_of
from chat.runs import Run
from chat.searching import search_tool
from chat.sessions import Turn
from chat.sources import admitted, key_of
from chat.spending import tokens_of
from chat.steps import Call, Stage, Step, open_calls, steps_of
from chat.terms import Terms
from chat.tools import NO_TOOLS, Toolbox
from chat.tracing import StepSpan

LOST = "Nobody knows what came of this call: the process died while it ran. It may have taken effect."
"""What the model is told of a call that a crash left without an answer. It is not made again."""

DENIED = "This call was not allowed. Do not try it again unless you are asked to."

NOT_MADE = "The call was cut off while it was written, and not made."

CUT_SHORT = ("length", "content_filter")
"""Finish reasons of answers that end in the middle, be it of a call."""

_CUT = {Stage.WRITTEN: NOT_MADE, Stage.DENIED: DENIED, Stage.MADE: LOST}

FIRST_BACKOFF = 0.5
"""Seconds before the first repeat of a request; each further one waits twice as long, less a random part."""

Messages: TypeAlias = Callable[[Run, Terms, Sequence[Turn]], Awaitable[Sequence[Turn]]]
"""What a run asks the model, and the system says besides; the same whenever it is asked, until the run has ended."""

logger = logging.getLogger(__name__)


class Generation:
    """Generates answers: reads the model into the journal, runs the tools it calls. Knows nothing of who follows.

    ``messages`` says what the model is asked: by default to answer the run's message.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        model: ChatModel,
        policy: Policy,
        tools: Toolbox = NO_TOOLS,
        approvals: Approvals | None = None,
        meter: Meter = NO_METER,
        messages: Messages | None = None,
        retrieval: Retrieval | None = None,
    ) -> None:
        self._store = store
        self._journal = journal
        self._model = model
        self._policy = policy
        self._approvals = approvals or Approvals(store)
        self._meter = meter
        self._quotations = Quotations(store, retrieval or Retrieval(store), policy.budgets, policy.passage_tokens)
        searching = policy.search_documents and policy.passage_tokens > 0
        self._tools = tools.searching(search_tool(self._quotations)) if searching else tools
        self._messages = messages or Context(store, policy.budgets, policy.system_prompt).messages

    def resume(self, live: LiveRun, theirs: Collection[str] = ()) -> bool:
        """Make a run that was taken over ready to go on; False if it has to be interrupted instead.

        When nothing was shown but passages it simply starts over. Else the seam is recorded, and the model will be
        asked to go on from the stored text. Calls that have no answer get one: they are not made again. Those of the
        client's tools, which are ``theirs``, are left to it.
        """
        if not _begun(live):
            return live.run.epoch <= self._policy.takeovers
        seams = len(list(takewhile(lambda event: isinstance(event, Seam), reversed(live.events))))
        cut = open_calls(live.events)
        patient = Stage.WAITING in cut.values()  # it is not its own fault that processes come and go
        interrupts = self._policy.crash_recovery is CrashRecovery.INTERRUPT or seams >= self._policy.takeovers
        if interrupts and not patient:
            return False
        self._journal.append(live, Seam(live.run.epoch))
        left = {event.call_id for event in live.events if isinstance(event, ToolCalled) and event.name in theirs}
        for call_id, stage in cut.items():
            if stage is not Stage.WAITING and call_id not in left:
                self._journal.append(live, ToolFinished(call_id, error=_CUT[stage]))
        return True

    async def generate(self, live: LiveRun) -> Terminal | None:
        """The run's terminal event, when everything before it is in the journal.

        None if all that it has committed waits for a yes, and that was put off: another process is to go on.

        Raises:
            ChatError: the journal does not take the run's events any more.
        """
        try:
            async with asyncio.timeout(self._policy.run_seconds) as limit:
                request, theirs = await self._request(live)
                return await self._answer(live, request, theirs, limit)
        except ModelError as error:
            return RunFailed(error.code, error.message, error.retryable, retry_after=error.retry_after)
        except TimeoutError:
            if not limit.expired():
                raise
            return RunFailed("run_timeout", "The answer took too long and was stopped.", retryable=True)

    async def _answer(
        self, live: LiveRun, request: ModelRequest, theirs: Collection[str], limit: asyncio.Timeout
    ) -> Terminal | None:
        """``theirs`` are the tools that the client runs: the run ends where one is called."""
        if _begun(live):
            live.spending.recover(live.run.model, request.messages, live.events)
        if request.steps and not all(call.answered for call in request.steps[-1].calls):  # they waited for a yes
            *before, last = request.steps
            ours = [call for call in last.calls if call.name not in theirs]
            with live.span.step(len(request.steps)) as span:
                answered = await self._use(live, ours, limit, span)
            if answered is None:
                return None
            if len(ours) < len(last.calls):
                return completed(live.answer, "tool_calls")
            request = replace(request, steps=[*before, replace(last, calls=answered)])
        while len(request.steps) < self._policy.steps:
            with live.span.step(len(request.steps) + 1) as span:
                sent = request  # which fits, as long as no tool has answered
                if request.steps:
                    sent = fitted_request(request, self._policy.budgets.room(live.run.model))
                heard = await self._step(live, sent, span)
                assert heard.finished is not None
                live.spending.end(heard.finished.usage, live.said)
                calls = self._whole(live, heard.calls, heard.finished.reason)
                if not calls:
                    return completed(live.answer, heard.finished.reason)
                text = live.answer[sum(len(step.text) for step in request.steps) :]
                ours = [call for call in calls if call.name not in theirs]
                await self._call(live, calls, ours)
                answered = await self._use(live, ours, limit, span)
            if answered is None:
                return None
            if len(ours) < len(calls):
                return completed(live.answer, "tool_calls")
            steps, taken = [*request.steps, Step(text, answered)], {*request.taken, *heard.written}
            speaker = heard.model or request.speaker
            request = replace(request, steps=steps, prefix="", speaker=speaker, taken=taken)
        raise OverLimitError("too_many_steps", "The model went on calling tools, and was stopped.", retryable=True)

    async def _step(self, live: LiveRun, request: ModelRequest, span: StepSpan) -> Hearing:
        attempt = 0
        with span.model_call(request.model) as call:
            while True:
                queued = live.queued
                try:
                    heard = await self._attempt(live, request)
                except OverLimitError:
                    raise
                except ModelError as error:
                    self._meter.upstream_failed(error.code)
                    call.attempt_failed(error.code)
                    silent = live.queued == queued
                    if silent:
                        live.spending.drop(error.charged)
                    wait = self._wait_before(attempt, error) if silent else None
                    extra = {"run_id": live.run.id, "code": error.code, "repeat_in": wait}
                    logger.warning("the model failed: %s", error.code, extra=extra)
                    if wait is None:
                        raise
                    await asyncio.sleep(wait)
                    attempt += 1
                else:
                    assert heard.finished is not None
                    call.answered(heard.model, heard.finished.reason, heard.finished.usage)
                    return heard

    def leave(self, live: LiveRun) -> None:
        """Whoever takes it over says the seam."""

    async def complete(self, live: LiveRun) -> None:
        """Count what earlier owners of the run asked, if it ends before this one comes to it.

        Raises:
            StoreUnavailableError: not now; the next call tries again.
        """
        if _begun(live) and not live.spending.shares(live.said):
            terms = await self._store.terms(live.run.id)
            messages = await self._messages(live.run, terms, quotation(quoted_in(live.events)))
            live.spending.recover(live.run.model, messages, live.events)

    async def _request(self, live: LiveRun) -> tuple[ModelRequest, Collection[str]]:
        """What the model is asked, and which of the tools are the client's."""
        await self._journal.landed(live)  # what resuming has added to the log
        await self._tools.settled()
        run = live.run
        terms = await patiently(lambda: self._store.terms(run.id), run.id)
        theirs = {spec.name for spec in terms.tools}
        steps, prefix = steps_of(live.events)
        selected = [event.model for event in live.events if isinstance(event, ModelSelected)]
        told = quotation(await self._quoted(live, terms))
        messages = await patiently(lambda: self._messages(run, terms, told), run.id)
        live.sent = sum(map(size_of, messages))
        request = ModelRequest(
            messages,
            prefix,
            steps,
            [*self._tools.offered(terms), *terms.tools],
            model=run.model,
            speaker=selected[-1] if selected else "",
            taken={
                *(call.id for turn in messages for step in turn.steps for call in step.calls),
                *(event.call_id for event in live.events if isinstance(event, ToolStarted)),
            },
            options=terms.options,
            kind=run.kind,
        )
        return request, theirs

    async def _quoted(self, live: LiveRun, terms: Terms) -> Sequence[Source]:
        """The passages that the model is shown: those in the log, where there is one; else they are looked for now.

        They are committed before the model is asked: whoever takes the run over asks with the same.
        """
        collection = terms.collection
        if collection is not None and not live.events:
            for found in await patiently(lambda: self._quotations.found(live.run, collection), live.run.id):
                self._cite(live, found)
            await self._journal.landed(live)
        return quoted_in(live.events)

    async def _attempt(self, live: LiveRun, request: ModelRequest) -> Hearing:
        asked = tokens_of(request.messages, request.steps, request.prefix)
        heard = Hearing(self._journal, self._policy, live, asked)
        live.spending.ask(request.model, asked, live.said)
        async with aclosing(self._model.stream(replace(request, hear=heard.hear))) as reads:
            async for parts in reads:
                heard.take(parts)
                if self._journal.full:
                    await self._journal.room()
        if heard.finished is None:
            message = "The model's answer broke off."
            raise ModelError("upstream_incomplete", message, retryable=True, transient=True)
        return heard

    def _whole(self, live: LiveRun, calls: list[Call], reason: str) -> list[Call]:
        """The calls that the model has written to their ends: where it was cut off, the last one is not."""
        if calls and reason in CUT_SHORT:
            self._journal.append(live, ToolFinished(calls.pop().id, error=NOT_MADE))
        return calls

    async def _call(self, live: LiveRun, calls: Sequence[Call], ours: Sequence[Call]) -> None:
        """Commit the calls, before any of them is made: a crash must find them. Only ``ours`` may need a yes.

        All in one commit, for nothing is awaited in between: a call is never there without its wait for a yes.
        """
        for call in calls:
            self._journal.append(live, ToolCalled(call.id, call.name, call.arguments))
        for call in ours:
            if self._tools.asks(call):
                self._journal.append(live, ToolApproval(call.id))
        await self._journal.landed(live)

    async def _use(
        self, live: LiveRun, calls: Sequence[Call], limit: asyncio.Timeout, span: StepSpan
    ) -> Sequence[Call] | None:
        """Make those that have no answer, side by side; all of them, answered, in their order.

        None, when the others have their answers, if one that waits for a yes was put off.
        """
        loop, deadline = asyncio.get_running_loop(), limit.when()
        assert deadline is not None
        left = deadline - loop.time()
        # As the log has it and not the tool: who was asked has to answer, even if it would not ask any more.
        waiting = {call_id for call_id, stage in open_calls(live.events).items() if stage is Stage.WAITING}
        if waiting:
            limit.reschedule(None)  # people take their time; tools have limits of their own
        running = [asyncio.create_task(self._answered(live, call, span, asks=call.id in waiting)) for call in calls]
        try:
            for answering in asyncio.as_completed(running):
                await answering
            answered = [task.result() for task in running]
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if waiting:
                limit.reschedule(loop.time() + left)
        if all(call.answered for call in answered):
            return answered
        await self._journal.landed(live)
        return None

    async def _answered(self, live: LiveRun, call: Call, span: StepSpan, *, asks: bool) -> Call:
        if call.answered:
            return call
        approved: bool | None = True
        if asks:
            approved = await self._approvals.decided(live.run.id, call.id)
            if approved is None:
                return call
            self._journal.append(live, ToolDecided(call.id, approved))
            await self._journal.landed(live)
        if approved:
            answered = await self._tools.answer(
                call, live.run, self._store, span, lambda found: self._cite(live, found)
            )
        else:
            answered = replace(call, error=DENIED)
        self._journal.append(live, ToolFinished(call.id, answered.result, answered.error))
        return answered

    def _cite(self, live: LiveRun, found: Source) -> bool:
        """Record what is no source of the run yet; False if it has as many as it may have."""
        if (source := admitted(found, live.sources, 0)) is not None:
            self._journal.append(live, source)
        return source is not None or key_of(found) in map(key_of, live.sources)

    def _wait_before(self, attempt: int, error: ModelError) -> float | None:
        """Seconds to wait before the same request is sent again; None if it is not."""
        if not error.transient or attempt >= self._policy.retries:
            return None
        wait = FIRST_BACKOFF * 2**attempt * random.uniform(0.5, 1)  # noqa: S311  # nosec B311  # jitter, no secret
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        return wait if wait <= self._policy.longest_wait else None


def _begun(live: LiveRun) -> bool:
    """Whether more was shown than the passages that the model was to be shown."""
    return len(live.events) > len(quoted_in(live.events))
