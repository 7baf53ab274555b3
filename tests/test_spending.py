from chat.events import Event, ReasoningDelta, RunCancelled, Seam, TextDelta, Usage
from chat.ports import ModelRequest
from chat.sessions import Turn
from chat.spending import Spending

HELLO = ModelRequest([Turn("system", "Be brief"), Turn("user", "Hello")])  # 2 tokens, and 2


def test_who_asks_nothing_uses_nothing() -> None:
    assert Spending().total("", "") is None


def test_request_under_way_is_estimated_by_what_it_brought_until_now() -> None:
    spending = Spending()
    spending.ask(HELLO, "", "")
    assert spending.total("", "") == Usage(4, 0, "estimated")
    assert spending.total("four", "eight...") == Usage(4, 3, "estimated", reasoning_tokens=2)


def test_what_is_reported_goes_before_the_estimate() -> None:
    spending = Spending()
    spending.ask(HELLO, "", "")
    spending.end(Usage(9, 7), "four", "")
    assert spending.total("four", "") == Usage(9, 7)
    spending.ask(HELLO, "four", "")
    spending.end(None, "four and", "hm")
    assert spending.total("four and", "hm") == Usage(13, 9, "estimated", reasoning_tokens=1)


def test_prefix_is_asked_and_not_answered() -> None:
    spending = Spending()
    spending.ask(ModelRequest(HELLO.messages, prefix="12345678"), "12345678", "1234")
    assert spending.total("12345678and", "1234") == Usage(6, 1, "estimated")


def test_request_that_was_turned_down_is_not_counted() -> None:
    spending = Spending()
    spending.ask(HELLO, "", "")
    spending.drop()
    assert spending.total("", "") is None
    spending.ask(HELLO, "", "")
    assert spending.total("four", "") == Usage(4, 1, "estimated")


def test_request_that_broke_off_is_counted_when_the_next_goes_out() -> None:
    spending = Spending()
    spending.ask(HELLO, "", "")
    spending.ask(HELLO, "four", "")
    spending.end(Usage(4, 2), "four and", "")
    assert spending.total("four and", "") == Usage(8, 3, "estimated")


def test_every_earlier_owner_that_said_something_asked_with_what_was_said_before() -> None:
    spending = Spending()
    log: list[Event] = [
        ReasoningDelta("hm.."),
        TextDelta("Hi "),
        TextDelta("there"),
        Seam(2),
        Seam(3),
        TextDelta(", you"),
        RunCancelled("requested"),
    ]
    spending.recover(["Hello", ""], log)
    assert spending.total("Hi there, you", "hm..") == Usage(2 + 2 + 2, 3 + 2, "estimated", reasoning_tokens=1)


def test_owner_that_said_nothing_left_no_trace() -> None:
    spending = Spending()
    spending.recover(["Hello"], [Seam(2)])
    assert spending.total("", "") is None
