from chat.events import (
    Event,
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
    Seam,
    TextDelta,
    ToolCalled,
    ToolDelta,
    ToolFinished,
    ToolStarted,
    Usage,
)
from chat.sessions import Turn
from chat.spending import Said, Spending, tokens_of, total_of
from chat.steps import Call, Step

OWN, OTHER = "gpt-4o-mini", "groq/other"
CALLED = Step("four", [Call("call_1", "look", "12345", "found")])


def estimated(asked: int, said: int, thought: int = 0) -> Usage:
    return Usage(asked, said, "estimated", reasoning_tokens=thought)


def said(answer: str = "", reasoning: str = "", arguments: str = "") -> Said:
    return Said(answer, reasoning, arguments)


def test_request_comes_to_all_that_is_sent() -> None:
    history = [Turn("system", "Be brief"), Turn("user", "Hello")]
    assert tokens_of(history) == 2 + 2
    assert tokens_of(history, [CALLED], "12345678") == 4 + (1 + 2 + 2) + 2
    assert tokens_of([Turn("assistant", "four and more", [CALLED])]) == 4 + (2 + 2)


def test_who_asks_nothing_uses_nothing() -> None:
    spending = Spending()
    spending.end(None, said())
    assert spending.shares(said()) == {}
    assert total_of({}) is None


def test_request_under_way_is_estimated_by_what_it_brought_until_now() -> None:
    spending = Spending()
    spending.ask(OWN, 4, said())
    assert spending.shares(said()) == {OWN: estimated(4, 0)}
    assert spending.shares(said("four", "eight...", '{"a":')) == {OWN: estimated(4, 1 + 2 + 2, 2)}


def test_what_is_reported_goes_before_the_estimate() -> None:
    spending = Spending()
    spending.ask(OWN, 4, said())
    spending.end(Usage(9, 7), said("four"))
    assert spending.shares(said("four")) == {OWN: Usage(9, 7)}
    spending.ask(OWN, 4, said("four"))
    spending.end(None, said("four and", "hm"))
    assert spending.shares(said("four and", "hm")) == {OWN: estimated(13, 9, 1)}


def test_what_was_said_before_is_asked_and_not_answered() -> None:
    spending = Spending()
    spending.ask(OWN, 6, said("12345678", "1234", "1234"))
    assert spending.shares(said("12345678and", "1234", "1234")) == {OWN: estimated(6, 1)}


def test_request_that_was_turned_down_is_not_counted() -> None:
    spending = Spending()
    spending.ask(OWN, 4, said())
    spending.drop([])
    assert spending.shares(said()) == {}
    spending.ask(OWN, 4, said())
    assert spending.shares(said("four")) == {OWN: estimated(4, 1)}


def test_request_that_was_taken_up_in_vain_is_charged_to_all_who_did() -> None:
    spending = Spending()
    spending.ask(OWN, 4, said())
    spending.drop([OWN, OTHER])
    spending.ask(OWN, 4, said())
    assert spending.shares(said("four")) == {OWN: estimated(8, 1), OTHER: estimated(4, 0)}


def test_request_that_broke_off_is_counted_when_the_next_goes_out() -> None:
    spending = Spending()
    spending.ask(OWN, 4, said())
    spending.ask(OWN, 4, said("four"))
    spending.end(Usage(4, 2), said("four and"))
    assert spending.shares(said("four and")) == {OWN: estimated(8, 3)}


def test_answer_is_on_the_model_that_gave_it() -> None:
    spending = Spending()
    spending.ask(OWN, 4, said())
    spending.end(Usage(5, 1), said("four"))
    spending.ask(OWN, 6, said("four"))
    spending.select(ModelSelected(OTHER, "fallback", "upstream_unavailable"))
    assert spending.shares(said("four and")) == {OWN: Usage(5, 1), OTHER: estimated(6, 1)}
    spending.end(Usage(9, 7), said("four and"))
    shares = spending.shares(said("four and"))
    assert shares == {OWN: Usage(5, 1), OTHER: Usage(9, 7)}
    assert total_of(shares) == Usage(14, 8)


def test_model_that_had_taken_the_request_up_is_charged_when_another_answers() -> None:
    spending = Spending()
    spending.ask(OWN, 4, said())
    spending.select(ModelSelected(OTHER, "fallback", "upstream_timeout", (OWN,)))
    assert spending.shares(said("four")) == {OWN: estimated(4, 0), OTHER: estimated(4, 1)}


# --- what other owners of the run have asked


def recovered(log: list[Event], *messages: Turn) -> dict[str, Usage]:
    spending = Spending()
    spending.recover(OWN, messages or [Turn("user", "Hello")], log)
    return dict(spending.shares(said()))


def test_every_earlier_owner_that_said_something_asked_with_what_was_said_before() -> None:
    log: list[Event] = [
        ReasoningDelta("hm.."),
        TextDelta("Hi "),
        TextDelta("there"),
        Seam(2),
        Seam(3),
        TextDelta(", you"),
        RunCancelled("requested"),
    ]
    assert recovered(log) == {OWN: estimated(2 + 2 + 2, 3 + 2, 1)}


def test_calls_are_said_and_what_tools_answer_is_asked() -> None:
    log: list[Event] = [
        ToolStarted("call_1", "look"),
        ToolDelta("call_1", "12345"),
        ToolCalled("call_1", "look", "12345"),
        ToolFinished("call_1", "found"),
        TextDelta("four"),
    ]
    assert recovered(log) == {OWN: estimated(2 + (2 + 2 + 2), 2 + 1)}


def test_log_tells_which_model_gave_which_answer() -> None:
    log: list[Event] = [
        ModelSelected(OTHER, "fallback", "upstream_timeout", (OWN,)),
        ToolStarted("call_1", "look"),
        ToolDelta("call_1", "1234"),
        ToolFinished("call_1", error="12345678"),
        ModelSelected(OWN, "requested"),
        TextDelta("four"),
        Seam(2),
        ReasoningDelta("1234"),
        Seam(3),
        ModelSelected(OTHER, "fallback", "upstream_auth"),
        TextDelta("five!"),
    ]
    own = estimated(2, 0) + estimated(2 + 1 + 2, 1) + estimated(5 + 1, 1, 1)
    assert recovered(log) == {OTHER: estimated(2, 1) + estimated(6, 2), OWN: own}


def test_history_counts_with_its_calls() -> None:
    turns = [Turn("assistant", "four", [CALLED]), Turn("user", "1234")]
    assert recovered([TextDelta("four")], *turns) == {OWN: estimated(1 + (2 + 2) + 1, 1)}


def test_owner_that_said_nothing_left_no_trace() -> None:
    assert recovered([Seam(2)]) == {}
