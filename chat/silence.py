"""A limit for silence."""

import asyncio

# Seconds between two looks, at most.
_PULSE = 1.0


class OverdueError(Exception):
    """The wait was ended by its limit."""


class SilenceLimit:
    """Ends a wait (``with silence:``) in which nothing was heard for ``limit`` seconds: OverdueError.

    Only :meth:`heard` counts, and only the time in which somebody waits. Works like :func:`asyncio.timeout`, by
    cancelling the task that waits; but one timer serves all waits of a stream, where a timeout for each would cost
    more than the reading. The clock is monotonic.
    From the first :meth:`heard` on the limit is ``later``.
    """

    def __init__(self, limit: float, later: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._later = limit if later is None else later
        self._since = self._loop.time()
        self._task: asyncio.Task[object] | None = None  # the one that waits
        self._cancelling = 0
        self._overdue = False
        self._timer = self._loop.call_later(min(limit, self._later, _PULSE), self._look)

    def heard(self) -> None:
        """Start counting anew."""
        self._since = self._loop.time()
        self._limit = self._later

    def shorten(self, limit: float) -> None:
        """Wait no longer than this, from now on; nothing if the limit is as short already."""
        if limit < max(self._limit, self._later):
            self._later = min(limit, self._later)
            self.heard()

    def close(self) -> None:
        self._timer.cancel()

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task(self._loop)  # to find the loop costs Python 3.11 a system call
        assert task is not None
        self._cancelling = task.cancelling()

    def __exit__(self, *_: object) -> None:
        task, self._task = self._task, None
        # If others have cancelled the task as well, theirs is the cancellation that counts.
        if self._overdue and task is not None and task.uncancel() <= self._cancelling:
            raise OverdueError from None

    def _look(self) -> None:
        left = self._since + self._limit - self._loop.time()
        if self._task is not None and left <= 0:
            self._overdue = True
            self._task.cancel()
            return
        self._timer = self._loop.call_later(min(left, _PULSE) if left > 0 else _PULSE, self._look)
