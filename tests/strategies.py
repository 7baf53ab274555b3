"""What hypothesis draws: events, and logs as a run writes them."""

from hypothesis import strategies as st

from chat.events import (
    Delta,
    Event,
    ReasoningDelta,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    Seam,
    Terminal,
    TextDelta,
    Usage,
)

# The characters that a line protocol could trip over come up often.
texts: st.SearchStrategy[str] = st.one_of(
    st.text(min_size=1, max_size=20),
    st.text(alphabet="ab \n\r\0:\u2028\ufeff", min_size=1, max_size=8),
)

counts = st.integers(0, 2**40)

usages = st.builds(Usage, counts, counts, st.sampled_from(["reported", "estimated"]))

deltas: st.SearchStrategy[Delta] = st.one_of(st.builds(TextDelta, texts), st.builds(ReasoningDelta, texts))

terminals: st.SearchStrategy[Terminal] = st.one_of(
    st.builds(RunCompleted, st.text(), counts, st.text(), st.none() | usages),
    st.builds(RunFailed, st.text(), st.text(), st.booleans()),
    st.builds(RunCancelled, st.text()),
    st.builds(RunInterrupted, st.text()),
)

seams = st.builds(Seam, st.integers(1, 2**40))

events: st.SearchStrategy[Event] = st.one_of(deltas, seams, terminals)

unfinished: st.SearchStrategy[list[Event]] = st.lists(st.one_of(deltas, deltas, seams), max_size=12)

logs: st.SearchStrategy[list[Event]] = st.builds(lambda log, end: [*log, end], unfinished, terminals)
