from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.events import Event, ReasoningDelta, Seam, TextDelta, ToolCalled, ToolFinished, ToolStarted
from chat.steps import Call, Stage, Step, answered, open_calls, steps_of
from tests.strategies import logs


def told(steps: list[Step], rest: str) -> list[Event]:
    """A log as a run writes it."""
    log: list[Event] = []
    for step in steps:
        log += [TextDelta(step.text)] if step.text else [ReasoningDelta("hm")]
        log += [ToolStarted(call.id, call.name) for call in step.calls]
        log += [ToolCalled(call.id, call.name, call.arguments) for call in step.calls]
        log += [ToolFinished(call.id, call.result, call.error) for call in reversed(step.calls)]
    return [*log, TextDelta(rest)] if rest else log


calls = st.builds(Call, st.uuids().map(str), st.text(min_size=1), st.text(), st.text())
steps = st.builds(Step, st.text(), st.lists(calls, min_size=1, max_size=3).map(tuple))


@given(st.lists(steps, max_size=4), st.text())
def test_steps_are_read_from_the_log_as_they_were(steps: list[Step], rest: str) -> None:
    assert steps_of(told(steps, rest)) == (steps, rest)


@given(logs)
def test_no_text_is_lost_whatever_the_log_is_like(log: list[Event]) -> None:
    found, rest = steps_of(log)
    assert "".join([*(step.text for step in found), rest]) == "".join(e.text for e in log if isinstance(e, TextDelta))


def test_calls_without_an_answer_are_kept_and_those_that_were_cut_are_not() -> None:
    log: list[Event] = [
        TextDelta("a"),
        ToolStarted("1", "f"),
        ToolStarted("2", "g"),
        ToolCalled("1", "f", "{}"),
        Seam(2),
    ]
    assert steps_of(log) == ([Step("a", (Call("1", "f", "{}"),))], "")
    assert open_calls(log) == {"1": Stage.MADE, "2": Stage.WRITTEN}
    assert open_calls([*log, ToolFinished("1", error="gone"), ToolFinished("2", error="gone")]) == {}


@pytest.mark.parametrize("behind", [TextDelta("b"), ReasoningDelta("b"), ToolStarted("2", "g")])
def test_what_is_said_behind_an_answer_is_the_next_step(behind: Event) -> None:
    first: list[Event] = [ToolStarted("1", "f"), ToolCalled("1", "f", ""), ToolFinished("1", "r")]
    found, _ = steps_of([*first, behind, ToolCalled("2", "g", "")])
    assert [step.calls[0].id for step in found] == ["1", "2"]


def test_calls_without_an_answer_take_the_one_that_is_known() -> None:
    open_call, told = Call("1", "f", "{}"), Call("2", "g", "{}", error="gone")
    known = [
        Step("", [replace(open_call, result="one"), replace(told, result="two", error=None), Call("4", "k", "{}", "x")])
    ]
    other = Step("c", [Call("3", "h", "{}")])
    assert answered([Step("a", [open_call, told]), other], known) == [
        Step("a", (replace(open_call, result="one"), told)),
        Step("c", (Call("3", "h", "{}"),)),
    ]
