"""Runs as they come, for the encoders to tell: between them every event, and every end."""

from collections.abc import Sequence

from chat.events import (
    Event,
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
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
    Usage,
    answer_text,
    completed,
)
from chat.runs import Run, RunStatus
from handlers.formats.encoder import Encoder

RUN = Run("run_1", "ses_1", "ann", "msg_1", "msg_2", RunStatus.RUNNING, "scripted", 1, 1, 0, 1_795_255_200_999)
USAGE = Usage(3, 2, "reported", 1, 1)


def told(encoding: Encoder, log: list[Event], cuts: Sequence[int] = ()) -> bytes:
    """The stream of ``RUN``, its log in pages of these sizes and the rest in a last one."""
    stream, seq = encoding.opening(RUN, 0), 0
    for size in (*cuts, len(log)):
        if page := log[seq : seq + size]:
            stream += encoding.encode("run_1", seq + 1, page)
            seq += len(page)
    return stream


def called(call_id: str, name: str, arguments: str) -> list[Event]:
    half = len(arguments) // 2
    pieces = [ToolDelta(call_id, piece) for piece in (arguments[:half], arguments[half:]) if piece]
    return [ToolStarted(call_id, name), *pieces, ToolCalled(call_id, name, arguments)]


def ended(log: list[Event], reason: str, usage: Usage | None = None) -> list[Event]:
    return [*log, completed(answer_text(log), reason, usage)]


SAID: list[Event] = [TextDelta('  Hello "you"\n'), TextDelta("\né\u2028")]
STEPS = ended(
    [
        ReasoningDelta("A "),
        ReasoningDelta("look."),
        TextDelta("I look. "),
        *called("call_1", "sky", '{\n  "city": "Oslo"\n}'),
        *called("call_2", "sky", ""),
        ToolFinished("call_2", error="No city."),
        ToolFinished("call_1", '{"rain":\r\n true}'),
        ReasoningDelta("Wet."),
        TextDelta("It rains."),
    ],
    "stop",
    USAGE,
)
LEFT = ended(
    [
        *SAID,
        ToolStarted("call_1", "look"),
        ToolStarted("call_2", "look"),
        ToolDelta("call_2", "{}"),
        ToolDelta("call_1", '{"where"'),
        ToolDelta("call_1", ': "é"}'),
        ToolCalled("call_1", "look", '{"where": "é"}'),
        ToolCalled("call_2", "look", "{}"),
    ],
    "tool_calls",
    USAGE,
)
"""``look`` is the client's tool."""

WAITS: list[Event] = [
    TextDelta("I "),
    TextDelta("order. "),
    *called("call_1", "order", '{"article": "tea"}'),
    *called("call_2", "order", "{}"),
    *called("call_3", "sky", "{}"),
    ToolApproval("call_1"),
    ToolApproval("call_2"),
    ToolFinished("call_3", "Blue."),
]
DECIDED = ended(
    [
        ToolDecided("call_1", approved=True),
        ToolDecided("call_2", approved=False),
        ToolFinished("call_2", error="This call was not allowed."),
        ToolFinished("call_1", "[1]"),
        TextDelta("One of two."),
    ],
    "length",
)
"""What comes of ``WAITS``."""

CUT: list[Event] = [
    TextDelta("Half a "),
    ToolStarted("call_1", "sky"),
    ToolDelta("call_1", '{"ci'),
    Seam(2),
    ToolFinished("call_1", error="It was cut off."),
    ModelSelected("other", "fallback", "upstream_timeout"),
    TextDelta("sentence."),
    RunFailed("upstream_error", "The model reported an error.", retryable=True),
]

SOURCES = ended(
    [
        Source("source_1", None, "Weather", "doc_1", "page 3", 0.5, "Wet."),
        ReasoningDelta("Hm"),
        TextDelta("I look. "),
        Source("source_2", "https://a.example/é", "Rain", text="It rains.", start=2, end=6),
        TextDelta("Well. "),
        *called("call_1", "sky", "{}"),
        ToolFinished("call_1", "[1]"),
        Source("source_3", "https://b.example", start=14, end=18),
        TextDelta("Rain."),
        ReasoningDelta("Hm"),
        Source("source_4", None),
        Source("source_5", "https://b.example"),
    ],
    "stop",
)

STORIES = {
    "text": ended(SAID, "stop", USAGE),
    "steps": STEPS,
    "left to the client": LEFT,
    "waiting": WAITS,
    "decided": [*WAITS, *DECIDED],
    "cut": CUT,
    "sources": SOURCES,
    "cancelled": [*SAID, ReasoningDelta("Hm"), RunCancelled("requested", USAGE)],
    "cancelled while waiting": [*WAITS, RunCancelled("requested")],
    "interrupted": [ReasoningDelta("Hm"), *called("call_1", "sky", "{}")[:2], RunInterrupted("process_died")],
    "nothing": ended([], "content_filter"),
}
