"""One clock for all streams. The loop's own clock stands still here, and is moved by hand."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from handlers.pulse import GRACE, Pulse


class Clock:
    """A loop's clock and timers, as far as the pulse needs them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> "Timer":
        timer = Timer(self, self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def move(self, seconds: float) -> int:
        """Let time pass; how many timers rang."""
        end, rang = self.now + seconds, 0
        while due := [timer for timer in self.timers if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = timer.when
            timer.callback()
            rang += 1
        self.now = end
        return rang


class Timer:
    def __init__(self, clock: Clock, when: float, callback: Callable[[], object]) -> None:
        self.clock, self.when, self.callback = clock, when, callback

    def cancel(self) -> None:
        self.clock.timers.remove(self)


class Stream:
    def __init__(self, clock: Clock, *, sending: bool = False) -> None:
        self.clock, self.since, self.sending = clock, clock.now, sending
        self.pings = self.drops = 0

    def ping(self) -> None:
        self.pings += 1
        self.since = self.clock.now

    def drop(self) -> None:
        self.drops += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock: Any = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock  # type: ignore[no-any-return]


def test_quiet_streams_are_pinged_and_only_they(clock: Clock) -> None:
    pulse, quiet, busy = Pulse(15, 60), Stream(clock), Stream(clock)
    pulse.add(quiet)
    pulse.add(busy)
    for _ in range(62):
        clock.move(1)
        busy.since = clock.now
    assert (quiet.pings, busy.pings) == (4, 0)
    assert quiet.drops == busy.drops == 0


def test_reader_that_stalls_is_dropped_and_not_pinged(clock: Clock) -> None:
    pulse, stalled = Pulse(15, 60), Stream(clock, sending=True)
    pulse.add(stalled)
    clock.move(59)
    assert (stalled.pings, stalled.drops) == (0, 0)
    clock.move(2)
    assert (stalled.pings, stalled.drops) == (0, 2)


def test_clock_beats_once_a_second_however_many_streams_have_come_and_gone(clock: Clock) -> None:
    pulse = Pulse(15, 60)
    for _ in range(100):
        stream = Stream(clock)
        pulse.add(stream)
        pulse.remove(stream)
    assert not clock.timers
    pulse.add(Stream(clock))
    pulse.add(Stream(clock))
    assert clock.move(10) == 10


def test_stop_drops_what_is_still_open_a_moment_later(clock: Clock) -> None:
    pulse, open_one, ended = Pulse(15, 60), Stream(clock), Stream(clock)
    pulse.add(open_one)
    pulse.add(ended)
    pulse.stop()
    pulse.remove(ended)
    clock.move(GRACE * 0.9)
    assert open_one.drops == 0
    clock.move(GRACE * 0.2)
    assert (open_one.drops, ended.drops) == (1, 0)


def test_mistake_of_one_stream_does_not_stop_the_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    pulse, stream = Pulse(1, 60), Stream(clock)
    monkeypatch.setattr(stream, "ping", lambda: 1 / 0)
    pulse.add(stream)
    with pytest.raises(ZeroDivisionError):
        clock.move(2)
    assert len(clock.timers) == 1
