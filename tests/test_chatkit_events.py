"""A run as ChatKit's stream."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.events import (
    Event,
    ReasoningDelta,
    RunCancelled,
    TextDelta,
    ToolApproval,
    ToolDecided,
    ToolDelta,
    ToolFinished,
    answer_text,
    completed,
)
from handlers.formats.chatkit import ChatKitEvents
from handlers.formats.chatkit_items import AnswerItems
from tests.stories import DECIDED, RUN, STEPS, WAITS, called, told
from tests.strategies import logs
from tests.widget import Widget, events_in, known_item, same, text_of

OPTIONS = {"type": "stream_options", "stream_options": {"allow_cancel": False}}


def records(log: list[Event], after: int = 0, **options: Any) -> list[str]:
    encoder = ChatKitEvents(**({"begin": [OPTIONS]} | options))
    *found, rest = (encoder.opening(RUN, after) + encoder.encode("run_1", 1, log)).decode().split("\n\n")
    assert rest == ""
    return found


def seen(found: list[str]) -> Widget:
    widget = Widget()
    widget.see(*events_in("\n".join(found)))
    return widget


def test_each_text_behind_what_tools_answered_is_a_message_of_its_own() -> None:
    items = list(seen(records(STEPS)).items.values())
    assert [item["type"] for item in items] == [
        "workflow", "assistant_message", "workflow", "workflow", "assistant_message",
    ]  # fmt: skip
    assert (items[1]["id"], text_of(items)) == ("msg_2", "I look. It rains.")
    tasks = items[2]["workflow"]["tasks"]
    assert [task["content"] for task in tasks] == ['{\n  "city": "Oslo"\n}\n\n{"rain":\r\n true}', "Error: No city."]
    assert {task["status_indicator"] for task in tasks} == {"complete"}


def test_deltas_of_an_open_message_are_the_same_bytes_without_the_short_cut() -> None:
    answer = AnswerItems("ses_1", "run_1", "msg_2", RUN.created_at)
    said: list[Event] = [TextDelta('Hello "you"\n'), TextDelta("é\u2028\x00")]
    expected = [json.dumps(members, ensure_ascii=False) for event in said for members in answer.say(event)]
    assert [record.partition("data: ")[2] for record in records(said, begin=[])[1:]] == expected


def test_text_between_calls_does_not_end_them() -> None:
    log = [*called("1", "f", "{}"), TextDelta("a"), *called("2", "g", "{}"), ReasoningDelta("b")]
    log += [ToolFinished("1", "x"), ToolFinished("2", "y"), TextDelta("c"), completed("ac", "stop", None)]
    widget = seen(records(log))
    [workflow] = [item for item in widget.items.values() if item.get("workflow", {}).get("type") == "custom"]
    assert [task["status_indicator"] for task in workflow["workflow"]["tasks"]] == ["complete", "complete"]
    assert widget.text == "ac"


def test_stream_rests_while_everything_waits_for_a_yes() -> None:
    encoder = ChatKitEvents()
    rests = []
    encoder.opening(RUN, 0)
    for seq, event in enumerate([*WAITS, *DECIDED[:3]], 1):
        encoder.encode("run_1", seq, [event])
        rests.append(bool(encoder.rest))
    assert rests == [False] * (len(WAITS) - 1) + [True, False, False, False]


def test_stream_does_not_rest_for_what_its_client_has_decided() -> None:
    encoder = ChatKitEvents([OPTIONS], decided=["call_1"])
    assert events_in(encoder.opening(RUN, len(WAITS)).decode()) == [OPTIONS]
    assert encoder.encode("run_1", 1, WAITS) == b""
    assert encoder.rest == b""
    frames = encoder.encode("run_1", len(WAITS) + 1, [DECIDED[0], ToolFinished("call_1", "Yes")])
    assert [event["type"] for event in events_in(frames.decode())] == ["thread.item.replaced", "thread.item.updated"]
    assert encoder.rest  # for the other one


def test_call_that_is_answered_without_a_yes_is_asked_for_no_longer() -> None:
    log = [*called("1", "f", "{}"), ToolApproval("1"), ToolFinished("1", error="Too late."), RunCancelled("requested")]
    [asked] = [item for item in seen(records(log)).items.values() if item["type"] == "structured_input"]
    assert (asked["status"], asked["inputs"][0]["answer"]) == ("skipped", {"values": [], "skipped": True})


def test_calls_nobody_heard_of_are_not_told() -> None:
    log: list[Event] = [
        ToolDelta("1", "x"), ToolApproval("1"), ToolDecided("1", approved=True), ToolFinished("1", "x"),
        completed("", "stop", None),
    ]  # fmt: skip
    assert seen(records(log)).items == {}


def test_a_long_thought_is_told_in_updates_that_grow() -> None:
    log: list[Event] = [ReasoningDelta("thought ") for _ in range(5_000)]
    found = records([*log, completed("", "stop", None)])
    length = sum(len(record) for record in found)
    assert len(found) > 20
    assert length < 8 * len("thought ") * len(log)
    [item] = seen(found).items.values()
    assert item["workflow"]["tasks"][0]["content"] == "thought " * 5_000


def test_trouble_and_leaving_can_be_tried_again() -> None:
    encoder = ChatKitEvents()
    for frame in (encoder.trouble(ChatError("store_unavailable", "Not now.")), encoder.leaving(700)):
        [error] = events_in(frame.decode())
        assert (error["type"], error["allow_retry"], bool(error["message"])) == ("error", True, True)


@given(log=logs, data=st.data())
def test_stream_from_any_cursor_is_the_end_of_the_uninterrupted_one(log: list[Event], data: st.DataObject) -> None:
    whole = records(log)
    after = data.draw(st.integers(1, len(log)))
    opening, *rest = records(log, after, begin=[])
    assert opening == ": ping"
    assert rest == whole[len(whole) - len(rest) :]
    shown = [int(record.partition("\n")[0][10:]) for record in rest if record.startswith("id: ")]
    assert all(seq > after for seq in shown)


@given(log=logs, cuts=st.lists(st.integers(1, 5), max_size=4))
def test_pages_do_not_show(log: list[Event], cuts: list[int]) -> None:
    found = told(ChatKitEvents([OPTIONS]), log, cuts)
    assert found.decode().split("\n\n")[:-1] == records(log)


@given(log=logs)
def test_text_joins_up_and_nothing_stays_open(log: list[Event]) -> None:
    widget = seen(records(log))
    assert widget.text == answer_text(log)
    assert widget.open == set()
    waiting = [item for item in widget.items.values() if item.get("status") == "pending"]
    assert waiting == []


@given(log=logs, data=st.data())
def test_items_are_what_a_stream_that_was_cut_has_shown(log: list[Event], data: st.DataObject) -> None:
    part = log[: data.draw(st.integers(0, len(log)))]
    answer = AnswerItems("ses_1", "run_1", "msg_2", RUN.created_at)
    for event in part:
        for _ in answer.say(event):
            pass
    items = [known_item(item) for item in answer.items]
    shown = list(seen(records(part)).items.values())
    assert text_of(items) == text_of(shown) == answer_text(part)
    thoughts = [item for item in shown if item.get("workflow", {}).get("type") == "reasoning"]
    if not thoughts:  # of them the stream tells now and then
        assert same(items, shown)
