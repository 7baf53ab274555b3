"""Encoders: a run's events become frames. Pure: no I/O, no await; one file a wire format."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chat.events import Event
from chat.runs import Run
from handlers.formats.named import NamedEvents
from handlers.formats.text import PlainText


class Encoder(Protocol):
    """A wire format. Frames are bytes, ready to be sent."""

    def opening(self, run: Run, after: int) -> bytes:
        """What goes out at once: it carries the cursor, so that from now on a reconnect resumes."""
        ...

    def encode(self, run_id: str, first_seq: int, events: Sequence[Event]) -> bytes:
        """The frames of neighbouring events; ``first_seq`` is the first one's place."""
        ...


FORMATS: Mapping[str, Encoder] = {"text": PlainText(), "events": NamedEvents()}
"""By the name that ``format=`` gives."""

LINES: Encoder = PlainText(done=None)
"""For clients that print every data line: the plain text, and nothing behind it."""
