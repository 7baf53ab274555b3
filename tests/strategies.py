"""What hypothesis draws: events, and logs as a run writes them."""

from typing import Literal

from hypothesis import strategies as st

from chat.events import (
    Delta,
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
    Terminal,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolDelta,
    ToolEvent,
    ToolFinished,
    ToolStarted,
    Usage,
)

# The characters that a line protocol could trip over come up often.
texts: st.SearchStrategy[str] = st.one_of(
    st.text(min_size=1, max_size=20),
    st.text(alphabet="ab \n\r\0:\u2028\ufeff", min_size=1, max_size=8),
)

counts = st.integers(0, 2**40)


def _usage(numbers: list[int], source: Literal["reported", "estimated"]) -> Usage:
    cached, asked, reasoning, answered = (*sorted(numbers[:2]), *sorted(numbers[2:]))
    return Usage(asked, answered, source, cached, reasoning)


usages = st.builds(_usage, st.lists(counts, min_size=4, max_size=4), st.sampled_from(["reported", "estimated"]))

deltas: st.SearchStrategy[Delta] = st.one_of(st.builds(TextDelta, texts), st.builds(ReasoningDelta, texts))

terminals: st.SearchStrategy[Terminal] = st.one_of(
    st.builds(RunCompleted, st.text(), counts, st.text(), st.none() | usages),
    st.builds(RunFailed, st.text(), st.text(), st.booleans(), st.none() | usages, st.none() | st.floats(0, 1e9)),
    st.builds(RunCancelled, st.text(), st.none() | usages),
    st.builds(RunInterrupted, st.text(), st.none() | usages),
)

seams = st.builds(Seam, st.integers(1, 2**40))

call_ids = st.sampled_from(["call_1", "call_2", "call_3"])

tool_events: st.SearchStrategy[ToolEvent] = st.one_of(
    st.builds(ToolStarted, call_ids, st.text(min_size=1)),
    st.builds(ToolDelta, call_ids, texts),
    st.builds(ToolCalled, call_ids, st.text(min_size=1), st.text()),
    st.builds(ToolApproval, call_ids),
    st.builds(ToolDecided, call_ids, st.booleans()),
    st.builds(ToolFinished, call_ids, result=st.text()),
    st.builds(ToolFinished, call_ids, error=st.text()),
)

selections = st.builds(
    ModelSelected,
    st.text(),
    st.sampled_from(["requested", "default", "fallback"]),
    st.none() | st.text(),
    st.lists(st.text(), max_size=2).map(tuple),
)

_labels = st.none() | texts
_spans = st.none() | st.integers(0, 30)

pages = st.builds(
    Source, texts, texts, _labels, st.none(), st.none(), st.none() | st.floats(0, 1), _labels, _spans, _spans
)

passages = st.builds(Source, texts, st.none(), _labels, _labels, _labels, st.none() | st.floats(0, 1), _labels)

_counts = st.integers(0, 9)

imports: st.SearchStrategy[Event] = st.one_of(
    st.builds(ImportStarted, _counts, _counts),
    st.builds(ImportDocument, texts, texts, _counts, _counts, _counts),
    st.builds(ImportRefused, texts, texts, texts, _counts, _counts),
)

beside: st.SearchStrategy[Event] = st.one_of(tool_events, pages, passages, seams, selections, imports)

events: st.SearchStrategy[Event] = st.one_of(deltas, beside, terminals)

unfinished: st.SearchStrategy[list[Event]] = st.lists(st.one_of(deltas, deltas, beside), max_size=12)

logs: st.SearchStrategy[list[Event]] = st.builds(lambda log, end: [*log, end], unfinished, terminals)
