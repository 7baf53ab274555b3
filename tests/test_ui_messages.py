"""A run as the AI SDK's UI message stream."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.events import (
    Event,
    RunCancelled,
    Seam,
    TextDelta,
    ToolApproval,
    ToolDecided,
    ToolDelta,
    ToolFinished,
    answer_text,
    completed,
)
from handlers.formats.ui_messages import UIMessages
from tests.stories import DECIDED, RUN, WAITS, called, told
from tests.strategies import logs


def records(log: list[Event], after: int = 0, **options: Any) -> list[str]:
    encoder = UIMessages(**options)
    whole = encoder.opening(RUN, after) + encoder.encode("run_1", 1, log)
    *found, rest = whole.decode().split("\n\n")
    assert rest == ""
    return found


def parts(found: list[str]) -> list[Any]:
    lines = [line.removeprefix("data: ") for record in found for line in record.split("\n") if line[:6] == "data: "]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_stream_rests_while_everything_waits_for_a_yes() -> None:
    encoder = UIMessages()
    rests = []
    for seq, event in enumerate([*WAITS, *DECIDED[:3], Seam(2), ToolApproval("call_9")], 1):
        encoder.encode("run_1", seq, [event])
        rests.append(bool(encoder.rest))
    assert rests == [False] * (len(WAITS) - 1) + [True] + [False] * 5
    encoder.encode("run_1", 1, WAITS)
    assert [part["type"] for part in parts(encoder.rest.decode().split("\n\n"))] == ["finish-step", "finish"]
    assert encoder.rest.endswith(b"data: [DONE]\n\n")


def test_stream_does_not_rest_for_what_its_client_has_decided() -> None:
    encoder = UIMessages(decided=["call_1"])
    assert encoder.encode("run_1", 1, WAITS) == b""
    assert encoder.rest == b""
    encoder.encode("run_1", len(WAITS) + 1, [DECIDED[0], ToolFinished("call_1", "Yes")])
    assert encoder.rest  # for the other one


def test_client_that_decided_late_gets_what_came_of_it() -> None:
    log = [*called("1", "f", "{}"), *called("2", "g", "{}"), ToolApproval("1"), ToolDecided("1", approved=True)]
    log += [ToolFinished("2", "a"), ToolFinished("1", "b"), TextDelta("c"), completed("c", "stop", None)]
    found = parts(records(log, decided=["1"]))
    assert [part["type"] for part in found[1:3]] == ["tool-output-available"] * 2
    ended = [*called("1", "f", "{}"), ToolApproval("1"), RunCancelled("requested")]
    assert [part["type"] for part in parts(records(ended, decided=["2"]))[1:]] == ["finish-step", "abort"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1e999, "\\ud83d"]}', None),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"__proto__": {}}', '{"__proto__": {}}'),
        ('[{"constructor": 1}]', '[{"constructor": 1}]'),
        ("{", "{"),
        ("[" * 100_000, "[" * 100_000),
        ("plain\n", "plain\n"),
        ("42", "42"),
        ("", ""),
    ],
)
def test_result_is_json_or_text_and_never_breaks_the_stream(text: str, value: str | None) -> None:
    *_, finished = records([*called("1", "f", text), ToolFinished("1", text)])
    [part] = parts([finished])
    if value is None:
        assert f'"output": {text}' in finished
    else:
        assert part["output"] == value


def test_calls_nobody_heard_of_are_not_told() -> None:
    log: list[Event] = [ToolDelta("1", "x"), ToolApproval("1"), ToolFinished("1", "x"), completed("", "stop", None)]
    assert [part["type"] for part in parts(records(log))] == ["start", "finish"]


def test_trouble_and_leaving_are_errors() -> None:
    encoder = UIMessages()
    for frame in (encoder.trouble(ChatError("store_unavailable", "Not now.")), encoder.leaving(700)):
        [error] = parts(frame.decode().split("\n\n"))
        assert (error["type"], bool(error["errorText"])) == ("error", True)


@given(log=logs, data=st.data())
def test_stream_from_any_cursor_is_the_end_of_the_uninterrupted_one(log: list[Event], data: st.DataObject) -> None:
    whole = records(log)
    after = data.draw(st.integers(0, len(log)))
    opening, *rest = records(log, after)
    assert rest == whole[len(whole) - len(rest) :]
    assert opening == (whole[0] if after == 0 else ": ping")
    shown = [int(record.partition("\n")[0][10:]) for record in rest if record.startswith("id: ")]
    assert all(seq > after for seq in shown)


@given(log=logs, cuts=st.lists(st.integers(1, 5), max_size=4))
def test_pages_do_not_show(log: list[Event], cuts: list[int]) -> None:
    found = told(UIMessages(), log, cuts)
    assert found.decode().split("\n\n")[:-1] == records(log)


@given(log=logs)
def test_text_joins_up_and_everything_is_opened_and_closed(log: list[Event]) -> None:
    texts: dict[str, str] = {}
    opened: list[str] = []
    for part in parts(records(log)):
        kind, _, what = part["type"].rpartition("-")
        if kind in ("text", "reasoning"):
            if what == "start":
                assert part["id"] not in texts
                texts[part["id"]] = ""
            elif what == "delta":
                texts[part["id"]] += part["delta"] if kind == "text" else ""
            assert opened[1:] == ([] if what == "start" else [part["id"]])
            opened[1:] = [] if what == "end" else [part["id"]]
        elif part["type"] == "start-step":
            assert opened == []
            opened.append("step")
        elif part["type"] == "finish-step":
            assert opened == ["step"]
            opened = []
    assert opened == []
    assert "".join(texts.values()) == answer_text(log)
