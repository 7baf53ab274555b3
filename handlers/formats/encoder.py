"""What makes frames of a run's events."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chat.errors import ChatError
from chat.events import Event
from chat.runs import Run
from handlers.formats.frames import notice, retry


class Encoder(Protocol):
    """A wire format. Frames are bytes, ready to be sent.

    One that keeps no state serves all streams. One that does belongs to one stream, ``replays``, and is given the run
    from its first event on, wherever its client stands: it leaves out what is behind the client already.
    """

    replays: bool = False

    counts_frames: bool = False
    """Its cursors are places among its own frames, and not in the log: nobody else knows where its end is."""

    headers: Mapping[str, str] = {}
    """Of the response, beside those of every stream."""

    rest: bytes = b""
    """While the run waits for its client: what the stream ends with as soon as it has said all."""

    def opening(self, run: Run, after: int) -> bytes:
        """What goes out at once: it carries the cursor, so that from now on a reconnect resumes. Never empty."""
        ...

    def encode(self, run_id: str, first_seq: int, events: Sequence[Event]) -> bytes:
        """The frames of neighbouring events; ``first_seq`` is the first one's place."""
        ...

    def trouble(self, error: ChatError) -> bytes:
        """The log cannot be read or written now. Without an id: what the client has seen is where it resumes."""
        return notice("stream.error", {"code": error.code, "message": error.message, "retryable": True})

    def leaving(self, milliseconds: int) -> bytes:
        """The stream ends before the run does, which goes on elsewhere: come back after so long."""
        return retry(milliseconds)
