"""A run as the AI SDK's UI message stream. After a change that is meant: ``WRITE_GOLDEN=1 pytest`` writes the files."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.events import (
    Event,
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
    RunFailed,
    RunInterrupted,
    Seam,
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
from handlers.formats.ui_messages import Told, UIMessages
from tests.strategies import logs

GOLDEN = Path(__file__).parent / "golden/ui_messages"
RUN = Run("run_1", "ses_1", "ann", "msg_1", "msg_2", RunStatus.RUNNING, "scripted", 1, 1, 0, 1_795_255_200_999)


def called(call_id: str, name: str, arguments: str) -> list[Event]:
    half = len(arguments) // 2
    pieces = [ToolDelta(call_id, arguments[:half]), ToolDelta(call_id, arguments[half:])]
    return [ToolStarted(call_id, name), *pieces, ToolCalled(call_id, name, arguments)]


SAID: list[Event] = [TextDelta('Hello "you"\n'), TextDelta("é\u2028")]
STEPS: list[Event] = [
    ReasoningDelta("A "),
    ReasoningDelta("look."),
    TextDelta("I look. "),
    *called("call_1", "sky", '{\n  "city": "Oslo"\n}'),
    *called("call_2", "sky", ""),
    ToolFinished("call_2", error="No city."),
    ToolFinished("call_1", '{"rain":\r\n true}'),
    ReasoningDelta("Wet."),
    TextDelta("It rains."),
    completed("I look. It rains.", "stop", Usage(3, 2)),
]
WAITS: list[Event] = [
    TextDelta("I "),
    TextDelta("order. "),
    *called("call_1", "order", "{}"),
    *called("call_2", "order", "{}"),
    *called("call_3", "sky", "{}"),
    ToolApproval("call_1"),
    ToolApproval("call_2"),
    ToolFinished("call_3", "Blue."),
]
DECIDED: list[Event] = [
    ToolDecided("call_1", approved=True),
    ToolDecided("call_2", approved=False),
    ToolFinished("call_2", error="This call was not allowed."),
    ToolFinished("call_1", "[1]"),
    TextDelta("One of two."),
    completed("One of two.", "length", None),
]
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


def records(log: list[Event], after: int = 0, **options: Any) -> list[str]:
    encoder = UIMessages(**options)
    whole = encoder.opening(RUN, after) + encoder.encode("run_1", 1, log)
    *found, rest = whole.decode().split("\n\n")
    assert rest == ""
    return found


def parts(found: list[str]) -> list[Any]:
    lines = [line.removeprefix("data: ") for record in found for line in record.split("\n") if line[:6] == "data: "]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize(
    ("name", "log", "options"),
    [
        ("text", [*SAID, completed("", "stop", Usage(3, 2, "reported", 1, 1))], {}),
        ("steps", STEPS, {}),
        ("client-tools", [*called("call_1", "look", "{}"), completed("", "tool_calls", None)], {"tools": ["look"]}),
        ("waits", WAITS, {}),
        ("decided", [*WAITS, *DECIDED], {"decided": ["call_1", "call_2"], "message_id": "theirs"}),
        ("replayed", [*WAITS, *DECIDED], {}),
        ("cut", CUT, {}),
        ("stopped", [SAID[0], RunCancelled("requested", Usage(1, 1))], {}),
        ("interrupted", [ReasoningDelta("Hm"), RunInterrupted("process_died")], {}),
        (
            "earlier",
            [SAID[0], completed("", "x", None)],
            {"earlier": [Told("run_0", STEPS[:-1])], "message_id": "first"},
        ),
        ("nothing", [completed("", "content_filter", None)], {}),
    ],
)
def test_stream_looks_as_the_sdk_writes_it(name: str, log: list[Event], options: dict[str, Any]) -> None:
    found = "\n\n".join(records(log, **options)) + "\n\n"
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(found)
    assert found == file.read_text()


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
    told = parts(records(log, decided=["1"]))
    assert [part["type"] for part in told[1:3]] == ["tool-output-available"] * 2
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
    [told] = parts([finished])
    if value is None:
        assert f'"output": {text}' in finished
    else:
        assert told["output"] == value


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
    encoder, found, seq = UIMessages(), b"", 1
    found += encoder.opening(RUN, 0)
    for size in [*cuts, len(log)]:
        page = log[seq - 1 : seq - 1 + size]
        found += encoder.encode("run_1", seq, page)
        seq += len(page)
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
