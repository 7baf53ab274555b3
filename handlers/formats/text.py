"""The plain contract: the answer's text as data lines, for ``curl -N``, EventSource and line readers."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import assert_never

from chat.events import (
    Event,
    ImportDocument,
    ImportRefused,
    ImportStarted,
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    Seam,
    Source,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolDelta,
    ToolFinished,
    ToolStarted,
    name_of,
    payload_of,
)
from chat.runs import Run
from handlers.formats.encoder import Encoder
from handlers.formats.frames import cursor_only, json_frame, text_frame, text_part


class PlainText(Encoder):
    """``data: <text>`` for every delta; success ends with the data ``done``, or with nothing where that is None.

    What is not text is still a frame with an id and without data: no client sees it, and every cursor counts it. A call
    that waits for a yes is told in a comment, which is no part of the answer and which a reader of ``curl -N`` sees.

    Where a model says what the end is told by, alone on a line, it comes in two halves: no client takes it for the end.
    """

    def __init__(self, done: str | None = "[DONE]") -> None:
        self._done = done

    def opening(self, run: Run, after: int) -> bytes:
        return cursor_only(run.id, after)

    def encode(self, run_id: str, first_seq: int, events: Sequence[Event]) -> bytes:
        if len(events) == 1:  # who keeps up gets one at a time
            return self._frame(run_id, first_seq, events[0])
        return b"".join([self._frame(run_id, seq, event) for seq, event in enumerate(events, first_seq)])

    def _frame(self, run_id: str, seq: int, event: Event) -> bytes:
        if isinstance(event, TextDelta):  # nearly all of them are, and a match is slower
            if self._done is not None and self._done in event.text:
                return self._apart(run_id, seq, event.text)
            return text_frame(run_id, seq, event.text)
        match event:
            case ReasoningDelta() | Source() | Seam() | ModelSelected():
                return cursor_only(run_id, seq)
            case ImportStarted() | ImportDocument() | ImportRefused():
                return cursor_only(run_id, seq)
            case ToolStarted() | ToolDelta() | ToolCalled() | ToolDecided() | ToolFinished():
                return cursor_only(run_id, seq)
            case ToolApproval():
                return cursor_only(run_id, seq, f"a call waits for a yes, see GET /runs/{run_id}")
            case RunCompleted():
                return cursor_only(run_id, seq) if self._done is None else text_frame(run_id, seq, self._done)
            # What was used, and when to come back, is for ``format=events``: here a client finds what it always found.
            case RunFailed(code, message, retryable):
                return json_frame(run_id, seq, name_of(event), payload_of(RunFailed(code, message, retryable)))
            case RunCancelled() | RunInterrupted():
                return json_frame(run_id, seq, name_of(event), payload_of(replace(event, usage=None)))
            case _:
                assert_never(event)

    def _apart(self, run_id: str, seq: int, text: str) -> bytes:
        """The delta's frame; in several parts where a line of it is what the end is told by."""
        assert self._done is not None
        middle = len(self._done) // 2
        seeming = re.finditer(rf"(?<![^\r\n]){re.escape(self._done)}(?![^\r\n])", text)
        cuts = [0, *(found.start() + middle for found in seeming)]
        parts = [text_part(text[begin:end]) for begin, end in pairwise(cuts)]
        return b"".join(parts) + text_frame(run_id, seq, text[cuts[-1] :])
