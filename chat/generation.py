"""One run's generation: what the model is asked, what it says, and how that ends."""

import asyncio
import logging
import random
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile

from chat.errors import ModelError
from chat.events import RunFailed, Seam, Terminal, completed
from chat.journal import Journal
from chat.live import LiveRun
from chat.ports import ChatModel, Finished, ModelRequest, Store
from chat.sessions import Turn

BYTES_PER_TOKEN = 4
"""A rule of thumb for the context budget: an English word is about one token, a CJK character three bytes."""

FIRST_BACKOFF = 0.5
"""Seconds before the first repeat of a request; each further one waits twice as long, less a random part."""

logger = logging.getLogger(__name__)


class CrashRecovery(StrEnum):
    """What becomes of an answer of which a part was shown when its process died."""

    CONTINUE = "continue"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of a run.

    ``context_tokens``: budget of the history that is sent along. ``retries``: repeats of a request of which nothing
    was shown. ``longest_wait``: seconds; when an upstream asks for more patience than that, the run fails at once.
    ``answer_limit``: characters. ``takeovers``: how often a run may change its owner without a word of progress, so
    that an answer that kills its process does not kill the next one for ever.
    """

    system_prompt: str | None = None
    context_tokens: int = 16_000
    retries: int = 2
    longest_wait: float = 10.0
    answer_limit: int = 1_000_000
    crash_recovery: CrashRecovery = CrashRecovery.CONTINUE
    takeovers: int = 8


class AnswerTooLongError(ModelError):
    def __init__(self) -> None:
        super().__init__("answer_too_long", "The answer grew over this service's limit and was cut.", retryable=False)


class Generation:
    """Generates answers: reads the model into the journal. Knows nothing of who follows."""

    def __init__(self, store: Store, journal: Journal, model: ChatModel, policy: Policy) -> None:
        self._store = store
        self._journal = journal
        self._model = model
        self._policy = policy

    def resume(self, live: LiveRun) -> bool:
        """Make a run that was taken over ready to go on; False if it has to be interrupted instead.

        When nothing was shown it simply starts over. Else the seam is recorded, and the model will be asked to
        go on from the stored text.
        """
        if not live.events:
            return live.run.epoch <= self._policy.takeovers
        seams = len(list(takewhile(lambda event: isinstance(event, Seam), reversed(live.events))))
        if self._policy.crash_recovery is CrashRecovery.INTERRUPT or seams >= self._policy.takeovers:
            return False
        self._journal.append(live, Seam(live.run.epoch))
        return True

    async def generate(self, live: LiveRun) -> Terminal:
        """The run's terminal event, when everything before it is in the journal.

        Raises:
            ChatError: the journal does not take the run's events any more.
        """
        request = await self._request(live)
        attempt = 0
        while True:
            said = len(live.events) + len(live.pending)
            try:
                return await self._attempt(live, request)
            except ModelError as error:
                silent = len(live.events) + len(live.pending) == said
                wait = self._wait_before(attempt, error) if silent else None
                extra = {"run_id": live.run.id, "code": error.code, "repeat_in": wait}
                logger.warning("the model failed: %s", error.code, extra=extra)
                if wait is None:
                    return RunFailed(error.code, error.message, error.retryable)
                await asyncio.sleep(wait)
                attempt += 1

    async def _request(self, live: LiveRun) -> ModelRequest:
        run, policy = live.run, self._policy
        prompts = (policy.system_prompt, await self._store.instructions(run.id))
        system = [Turn("system", prompt) for prompt in prompts if prompt]
        budget = policy.context_tokens * BYTES_PER_TOKEN - sum(len(turn.content.encode()) for turn in system)
        history = list(await self._store.history(run.message_id, max(budget, 0)))
        while history and history[0].role == "assistant":  # cut in the middle: an answer without its question
            history.pop(0)
        return ModelRequest([*system, *history], prefix=live.answer)

    async def _attempt(self, live: LiveRun, request: ModelRequest) -> Terminal:
        finished: Finished | None = None
        room = self._policy.answer_limit - len(live.answer)
        async with aclosing(self._model.stream(request)) as reads:
            async for parts in reads:
                for part in parts:
                    if isinstance(part, Finished):
                        finished = part
                        continue
                    room -= len(part.text)
                    if room < 0:
                        raise AnswerTooLongError
                    self._journal.append(live, part)
                if self._journal.full:
                    await self._journal.room()
        if finished is None:
            message = "The model's answer broke off."
            raise ModelError("upstream_incomplete", message, retryable=True, transient=True)
        return completed(live.answer, finished.reason, finished.usage)

    def _wait_before(self, attempt: int, error: ModelError) -> float | None:
        """Seconds to wait before the same request is sent again; None if it is not."""
        if not error.transient or attempt >= self._policy.retries:
            return None
        wait = FIRST_BACKOFF * 2**attempt * random.uniform(0.5, 1)  # noqa: S311  # jitter, no secret
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        return wait if wait <= self._policy.longest_wait else None
