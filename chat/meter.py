"""What the operator's graphs are made of."""

from typing import Protocol

from chat.events import Usage


class Meter(Protocol):
    """What is counted and timed: told of runs and commits, never of a token, which costs little more than a call."""

    def run_ended(self, outcome: str, usage: Usage | None) -> None:
        """``outcome`` is the run's status at its end."""
        ...

    def first_token(self, seconds: float) -> None:
        """A run has begun to speak, and it is committed, so long after this process took it up."""
        ...

    def committed(self, events: int, seconds: float) -> None:
        """So many events, of all runs together, were committed in one transaction."""
        ...

    def upstream_failed(self, code: str) -> None:
        """A request to the model failed, be it that it is sent again or that the run fails with it."""
        ...


class NoMeter:
    """Nobody looks."""

    def run_ended(self, outcome: str, usage: Usage | None) -> None:
        pass

    def first_token(self, seconds: float) -> None:
        pass

    def committed(self, events: int, seconds: float) -> None:
        pass

    def upstream_failed(self, code: str) -> None:
        pass


NO_METER: Meter = NoMeter()
