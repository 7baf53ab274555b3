"""Encoders: a run's events become frames. Pure: no I/O, no await; one file a wire format."""

from collections.abc import Mapping

from handlers.formats.encoder import Encoder
from handlers.formats.named import NamedEvents
from handlers.formats.text import PlainText

__all__ = ["FORMATS", "LINES", "Encoder"]

FORMATS: Mapping[str, Encoder] = {"text": PlainText(), "events": NamedEvents()}
"""By the name that ``format=`` gives."""

LINES: Encoder = PlainText(done=None)
"""For clients that print every data line: the plain text, and nothing behind it."""
