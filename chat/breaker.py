"""A circuit breaker: what is dead is not asked again and again."""

import logging
import time
from collections.abc import Callable

from chat.errors import ModelError

FAILURES = 5
"""Failures in a row that open it: more than one run's repeats, so that one unlucky run does not."""

FIRST_PAUSE = 5.0
"""Seconds that it stays open at first: a run that waits for its repeat still outlives a provider's short break."""

LONGEST_PAUSE = 60.0
"""Seconds; each trial that fails doubles the pause up to this."""

TRIAL_WAIT = 1.0
"""Seconds after which to ask again while a trial is under way."""

logger = logging.getLogger(__name__)


class CircuitBreaker:
    """Counts what becomes of the requests to one provider, and says whether another may be sent.

    Closed, it lets all pass. Open, it refuses them until its pause is over; then one trial decides. ``name`` is the
    provider's, for the log; ``clock`` is monotonic, in seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._failures = 0
        self._last: ModelError | None = None
        self._pause = FIRST_PAUSE
        self._trial_at: float | None = None  # None while it is closed
        self._trial: Attempt | None = None
        self.turn = 0

    @property
    def closed(self) -> bool:
        return self._trial_at is None

    def admit(self, *, trial: bool = True) -> "Attempt":
        """A request that may be sent; it has to be told how it went. ``trial``: it may be the one that decides.

        Raises:
            ModelError: as the last failure was, with the seconds until the next trial.
        """
        if self._trial_at is None:
            return Attempt(self, self.turn)
        wait = self._trial_at - self._clock()
        if wait > 0 or self._trial is not None or not trial:
            assert self._last is not None
            code, message = self._last.code, self._last.message
            raise ModelError(code, message, retryable=True, transient=True, retry_after=max(wait, TRIAL_WAIT))
        self._trial = Attempt(self, self.turn)
        return self._trial

    def succeeded(self) -> None:
        self._failures = 0
        if self._trial_at is not None:
            logger.warning("%s answers again", self._name)
            self._change(None)

    def failed(self, error: ModelError) -> None:
        self._failures += 1
        self._last = error
        if self._trial_at is not None:
            self._open(min(self._pause * 2, LONGEST_PAUSE))
        elif self._failures >= FAILURES:
            self._open(FIRST_PAUSE)

    def given_up(self) -> None:
        self._trial = None

    def _open(self, pause: float) -> None:
        logger.warning("%s fails: it is not asked for %d seconds", self._name, pause)
        self._pause = pause
        self._change(self._clock() + pause)

    def _change(self, trial_at: float | None) -> None:
        self._trial_at = trial_at
        self._trial = None
        self.turn += 1


class Attempt:
    """One request under way. Only the first word about it counts, and none if the breaker has moved meanwhile."""

    __slots__ = ("_breaker", "_turn")

    def __init__(self, breaker: CircuitBreaker, turn: int) -> None:
        self._breaker = breaker
        self._turn: int | None = turn

    def succeeded(self) -> None:
        if self._counts():
            self._breaker.succeeded()

    def failed(self, error: ModelError) -> None:
        if self._counts():
            self._breaker.failed(error)

    def given_up(self) -> None:
        """Nobody knows how it went."""
        if self._counts():
            self._breaker.given_up()

    def _counts(self) -> bool:
        turn, self._turn = self._turn, None
        return turn == self._breaker.turn
