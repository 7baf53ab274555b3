import hashlib
import json
from typing import get_args

import pytest
from hypothesis import given

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
    Usage,
    answer_text,
    completed,
    dump,
    load,
    name_of,
    payload_of,
)
from tests.strategies import events

NAMES: dict[type[Event], str] = {
    TextDelta: "text.delta",
    ReasoningDelta: "reasoning.delta",
    ToolStarted: "tool.started",
    ToolDelta: "tool.delta",
    ToolCalled: "tool.called",
    ToolApproval: "tool.approval",
    ToolDecided: "tool.decided",
    ToolFinished: "tool.finished",
    Source: "source",
    Seam: "seam",
    ModelSelected: "model.selected",
    ImportStarted: "import.started",
    ImportDocument: "import.document",
    ImportRefused: "import.refused",
    RunCompleted: "run.completed",
    RunFailed: "run.failed",
    RunCancelled: "run.cancelled",
    RunInterrupted: "run.interrupted",
}


@given(events)
def test_event_comes_back_from_the_store_as_it_went_in(event: Event) -> None:
    assert load(*dump(event)) == event


@given(events)
def test_event_has_the_name_that_clients_know(event: Event) -> None:
    assert name_of(event) == dump(event)[0] == NAMES[type(event)]


def test_every_kind_of_event_has_a_name_of_its_own() -> None:
    kinds = [kind for member in get_args(Event) for kind in get_args(member) or (member,)]
    assert set(kinds) == set(NAMES)
    assert len(set(NAMES.values())) == len(NAMES)


@given(events)
def test_payload_is_json_with_all_that_the_event_says(event: Event) -> None:
    name, payload = name_of(event), json.loads(json.dumps(payload_of(event)))
    text = payload["text"] if payload.keys() == {"text"} else json.dumps(payload)
    assert load(name, text) == event


def test_payload_leaves_out_what_is_not_there() -> None:
    assert payload_of(RunCompleted("stop", 2, "ab")) == {"finish_reason": "stop", "text_length": 2, "text_sha256": "ab"}
    usage = payload_of(RunCompleted("stop", 2, "ab", Usage(3, 2)))["usage"]
    assert usage == {"input_tokens": 3, "output_tokens": 2, "source": "reported"}


def test_payload_has_the_parts_of_usage_that_the_upstream_told() -> None:
    usage = payload_of(RunCancelled("requested", Usage(3, 2, "estimated", reasoning_tokens=1)))["usage"]
    assert usage == {"input_tokens": 3, "output_tokens": 2, "source": "estimated", "reasoning_tokens": 1}


def test_end_that_an_earlier_version_stored_is_read() -> None:
    body = '{"finish_reason": "stop", "text_length": 2, "text_sha256": "ab", "usage": {"input_tokens": 3, '
    body += '"output_tokens": 2, "source": "reported"}}'
    assert load("run.completed", body) == RunCompleted("stop", 2, "ab", Usage(3, 2))
    assert load("run.cancelled", '{"reason": "requested"}') == RunCancelled("requested")


def test_text_is_stored_bare() -> None:
    assert dump(TextDelta('"é"')) == ("text.delta", '"é"')
    assert dump(ReasoningDelta("{")) == ("reasoning.delta", "{")


def test_event_of_a_later_version_is_not_mistaken_for_another() -> None:
    with pytest.raises(KeyError):
        load("tool.paused", "{}")


def test_answer_is_the_text_alone() -> None:
    log: list[Event] = [ReasoningDelta("hm"), TextDelta("Hi "), Seam(2), TextDelta("there"), RunCancelled("requested")]
    assert answer_text(log) == "Hi there"
    assert answer_text([]) == ""


def test_completed_event_proves_the_text() -> None:
    text = "Grüße \U0001f9d1"
    event = completed(text, "stop", None)
    assert event == RunCompleted("stop", 7, hashlib.sha256(text.encode("utf-8")).hexdigest(), None)
