from collections.abc import Callable
from functools import partial

import pytest

from chat.breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, TRIAL_WAIT, Attempt, CircuitBreaker
from chat.errors import ModelError

DOWN = ModelError("upstream_timeout", "It did not answer.", retryable=True, transient=True)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("groq", clock)


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.admit().failed(DOWN)


def wait_of(breaker: CircuitBreaker) -> float:
    """Seconds after which the refusal says to ask again."""
    with pytest.raises(ModelError) as caught:
        breaker.admit()
    assert (caught.value.code, caught.value.message) == (DOWN.code, DOWN.message)
    assert (caught.value.retryable, caught.value.transient) == (True, True)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def trial(breaker: CircuitBreaker, clock: Clock, pause: float) -> Attempt:
    """The one that is let through when the pause is over, and not before."""
    clock.now += pause - 0.25
    assert wait_of(breaker) == pytest.approx(TRIAL_WAIT)
    clock.now += 0.25
    return breaker.admit()


def test_failures_in_a_row_open_it(breaker: CircuitBreaker) -> None:
    fail(breaker, FAILURES - 1)
    assert breaker.closed
    fail(breaker, 1)
    assert not breaker.closed
    assert wait_of(breaker) == FIRST_PAUSE


def test_success_in_between_keeps_it_closed(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        fail(breaker, FAILURES - 1)
        breaker.admit().succeeded()
    assert breaker.closed


def test_request_that_was_given_up_says_nothing(breaker: CircuitBreaker) -> None:
    fail(breaker, FAILURES - 1)
    breaker.admit().given_up()
    assert breaker.closed
    fail(breaker, 1)
    assert not breaker.closed


def test_only_the_first_word_about_a_request_counts(breaker: CircuitBreaker) -> None:
    for _ in range(FAILURES):
        attempt = breaker.admit()
        attempt.succeeded()
        attempt.failed(DOWN)
    assert breaker.closed


def test_one_trial_closes_it(breaker: CircuitBreaker, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    fail(breaker, FAILURES)
    attempt = trial(breaker, clock, FIRST_PAUSE)
    assert wait_of(breaker) == TRIAL_WAIT
    assert not breaker.closed
    attempt.succeeded()
    assert breaker.closed
    fail(breaker, FAILURES - 1)
    assert breaker.closed
    said = [record.getMessage() for record in caplog.records]
    assert said == ["groq fails: it is not asked for 5 seconds", "groq answers again"]


def test_trials_that_fail_make_the_pause_grow_up_to_its_limit(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    pauses = [FIRST_PAUSE]
    for _ in range(6):
        trial(breaker, clock, pauses[-1]).failed(DOWN)
        pauses.append(wait_of(breaker))
    assert pauses == [5, 10, 20, 40, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    trial(breaker, clock, LONGEST_PAUSE).succeeded()
    fail(breaker, FAILURES)
    assert wait_of(breaker) == FIRST_PAUSE


def test_trial_that_is_given_up_lets_the_next_one_try(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    trial(breaker, clock, FIRST_PAUSE).given_up()
    breaker.admit().succeeded()
    assert breaker.closed


@pytest.mark.parametrize("late", [Attempt.succeeded, partial(Attempt.failed, error=DOWN), Attempt.given_up])
def test_what_was_sent_before_it_opened_changes_nothing_any_more(
    breaker: CircuitBreaker, clock: Clock, late: Callable[[Attempt], None]
) -> None:
    before = [breaker.admit() for _ in range(20)]
    fail(breaker, FAILURES)
    for attempt in before[:10]:
        late(attempt)
    assert wait_of(breaker) == FIRST_PAUSE
    under_way = trial(breaker, clock, FIRST_PAUSE)
    for attempt in before[10:]:
        late(attempt)
    assert wait_of(breaker) == TRIAL_WAIT
    under_way.succeeded()
    assert breaker.closed
