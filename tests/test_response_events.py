"""A run as OpenAI's responses."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from chat.errors import ChatError
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
    ends,
)
from chat.runs import Run, RunStatus
from chat.sessions import Turn
from chat.steps import Call, Step
from chat.terms import NO_TERMS, Terms, ToolSpec
from handlers.formats.responses import ResponseEvents, remembered, response_id, run_id_of
from tests.stories import RUN
from tests.strategies import logs

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

THEIRS = Terms(
    "Both prompts",
    [ToolSpec("look", "Looks.", {"type": "object"}, strict=True)],
    {"temperature": 0.5},
    {"instructions": "Be kind", "metadata": {"a": "b"}, "temperature": 0.5, "previous_response_id": "resp_0"},
)
LOG: list[Event] = [
    ReasoningDelta("Let me "),
    ReasoningDelta("see."),
    TextDelta('Hello "you"\n'),
    TextDelta("é☃"),
    ToolStarted("c1", "order"),
    ToolDelta("c1", '{"tea"'),
    ToolDelta("c1", ": 1}"),
    ToolCalled("c1", "order", '{"tea": 1}'),
    ToolApproval("c1"),
    Seam(2),
    ToolDecided("c1", approved=True),
    ToolFinished("c1", result="ordered"),
    ModelSelected("other", "fallback", "upstream_timeout"),
    TextDelta("Now you."),
    ToolStarted("c2", "look"),
    ToolStarted("c3", "look"),
    ToolDelta("c3", "{}"),
    ToolDelta("c2", '{"city": "Oslo"}'),
    ToolCalled("c2", "look", '{"city": "Oslo"}'),
    ToolCalled("c3", "look", "{}"),
    completed('Hello "you"\né☃Now you.', "tool_calls", Usage(9, 7, "reported", 4, 2)),
]


def told(log: list[Event], terms: Terms = NO_TERMS, *, starting_after: int = -1, after: int = 0) -> list[str]:
    """The records of a stream."""
    encoder = ResponseEvents(terms, starting_after)
    whole = encoder.opening(RUN, after) + encoder.encode("run_1", 1, log)
    *records, rest = whole.decode().split("\n\n")
    assert rest == ""
    return records


def parsed(records: list[str]) -> list[Any]:
    """Their data, each as OpenAI's own type says."""
    found = []
    for record in records:
        lines = dict(line.split(": ", 1) for line in record.split("\n"))
        data = json.loads(lines["data"])
        event = EVENTS.validate_python(data)
        assert lines["event"] == data["type"] == event.type
        assert unknown(event) <= {"store"}  # what the API sends and its client's types leave out
        found.append(data)
    return found


def unknown(value: object) -> set[str]:
    """The members that are in none of the types."""
    if isinstance(value, list):
        return set().union(*map(unknown, value))
    if not isinstance(value, BaseModel):
        return set()
    inner = [unknown(getattr(value, name)) for name in type(value).model_fields]
    return set(value.model_extra or ()).union(*inner)


def last(log: list[Event], terms: Terms = NO_TERMS) -> Any:
    return parsed(told(log, terms))[-1]


def now(log: list[Event], terms: Terms = NO_TERMS, run: Run = RUN) -> Any:
    """The response itself."""
    encoder = ResponseEvents(terms, sys.maxsize)
    encoder.opening(run, 0)
    assert encoder.encode("run_1", 1, log) == b""
    view = encoder.response(run)
    assert unknown(Response.model_validate(view)) <= {"store"}
    return json.loads(json.dumps(view))


def test_every_event_is_one_of_the_clients_types_and_the_next_number() -> None:
    events = parsed(told(LOG, THEIRS))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    output = events[-1]["response"]["output"]
    assert sorted(done, key=lambda item: int(item["id"].rpartition("_")[2])) == output
    assert [(item["type"], item["status"]) for item in output] == [
        ("reasoning", "completed"),
        ("message", "completed"),
        ("mcp_call", "completed"),
        ("message", "completed"),
        ("function_call", "completed"),
        ("function_call", "completed"),
    ]
    assert (output[2]["output"], output[4]["call_id"], output[5]["arguments"]) == ("ordered", "c2", "{}")
    assert events[-1]["response"]["model"] == "other"
    assert events[-1]["response"]["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 16,
    }


def test_clients_own_accumulator_comes_to_the_same_response() -> None:
    state = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in parsed(told(LOG, THEIRS)):
        state.handle_event(EVENTS.validate_python(event))
    assert state._completed_response is not None
    assert state._completed_response.output_text == answer_text(LOG)
    assert len(state._completed_response.output) == 6


def test_tool_of_ours_that_failed_and_calls_that_were_cut_off_say_so() -> None:
    log: list[Event] = [
        ToolStarted("c1", "order"),
        ToolCalled("c1", "order", "{}"),
        ToolStarted("c2", "look"),
        ToolDelta("c2", '{"ci'),
        ToolFinished("c1", error="No tea."),
        ToolFinished("c2", error="cut off"),
        ToolFinished("c2", error="unknown now"),
        ToolDelta("c2", "unknown now"),
        ToolCalled("c2", "look", "unknown now"),
        completed("", "stop", None),
    ]
    events = parsed(told(log, THEIRS))
    assert "response.mcp_call.failed" in [event["type"] for event in events]
    ours, theirs = events[-1]["response"]["output"]
    assert (ours["status"], ours["error"]["content"][0]["text"], ours["output"]) == ("failed", "No tea.", None)
    assert (theirs["status"], theirs["arguments"]) == ("incomplete", '{"ci')
    assert events[-1]["response"]["usage"] is None


@pytest.mark.parametrize(
    ("reason", "status", "detail"),
    [
        ("stop", "completed", None),
        ("eos", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_reason_of_the_end_is_the_status(reason: str, status: str, detail: object) -> None:
    end = last([TextDelta("Hi"), completed("Hi", reason, None)])
    assert (end["type"], end["response"]["status"]) == (f"response.{status}", status)
    assert (end["response"]["incomplete_details"], end["response"]["error"]) == (detail, None)
    assert end["response"]["output"][0]["status"] == status


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        (RunFailed("upstream_error", "It\nbroke", retryable=True), "failed", ("server_error", "upstream_error")),
        (
            RunFailed("upstream_rate_limited", "Busy.", retryable=True),
            "failed",
            ("rate_limit_exceeded", "upstream_rate_limited"),
        ),
        (RunInterrupted("process_died"), "failed", ("server_error", "run_interrupted")),
        (RunCancelled("requested"), "cancelled", None),
    ],
)
def test_bad_end_leaves_what_was_said_unfinished(end: Event, status: str, error: tuple[str, str] | None) -> None:
    log: list[Event] = [ToolStarted("c1", "order"), ToolCalled("c1", "order", "{}"), TextDelta("Half"), end]
    *before, ending = parsed(told(log))
    response = ending["response"]
    assert (ending["type"], response["status"]) == ("response.failed", status)
    assert (response["error"] and (response["error"]["code"], response["error"]["type"])) == error
    assert [item["status"] for item in response["output"]] == ["incomplete", "incomplete"]
    assert response["output"][1]["content"][0]["text"] == "Half"
    assert before[-1]["type"] == "response.output_text.delta"


def test_trouble_and_leaving_name_the_place_to_go_on_from() -> None:
    encoder = ResponseEvents(NO_TERMS)
    encoder.opening(RUN, 0)
    encoder.encode("run_1", 1, [TextDelta("Hi")])
    for frame, code in (
        (encoder.trouble(ChatError("store_unavailable", "Not now.")), "store_unavailable"),
        (encoder.leaving(700), "draining"),
    ):
        [error] = parsed(frame.decode().split("\n\n")[:-1])
        assert (error["type"], error["code"], error["sequence_number"]) == ("error", code, 4)
    behind = ResponseEvents(NO_TERMS, 9)
    behind.opening(RUN, 0)
    [error] = parsed(behind.leaving(700).decode().split("\n\n")[:-1])
    assert error["sequence_number"] == 9  # the client is further than the replay


def test_response_says_how_far_it_is() -> None:
    waiting = replace(RUN, status=RunStatus.QUEUED)
    assert now([], run=waiting)["status"] == "queued"
    assert now([])["status"] == "in_progress"
    asking = now(LOG[:9], THEIRS)["output"][2]
    assert (asking["status"], asking["approval_request_id"]) == ("calling", "c1")
    assert now([TextDelta("Hi")], run=waiting)["status"] == "in_progress"  # it has begun since
    assert now(LOG[:3], THEIRS)["output"][1]["content"][0]["text"] == 'Hello "you"\n'
    over = replace(RUN, status=RunStatus.COMPLETED, finished_at=1_795_255_201_000)
    assert now(LOG, THEIRS, over)["completed_at"] == 1_795_255_201
    assert now(LOG, THEIRS)["completed_at"] is None
    stopped = replace(over, status=RunStatus.CANCELLED)
    assert now([RunCancelled("requested")], run=stopped)["completed_at"] is None


def test_response_gives_back_what_its_client_said() -> None:
    response = now([], THEIRS)
    assert (response["instructions"], response["metadata"], response["temperature"]) == ("Be kind", {"a": "b"}, 0.5)
    assert response["previous_response_id"] == "resp_0"
    assert response["conversation"] == {"id": "ses_1"}
    assert response["tools"] == [
        {
            "type": "function",
            "name": "look",
            "description": "Looks.",
            "parameters": {"type": "object"},
            "strict": True,
        }
    ]


def test_ids_lead_to_runs_and_back() -> None:
    assert response_id(RUN) == "resp_1"
    assert run_id_of("resp_1") == "run_1"
    assert run_id_of("run_1") == run_id_of("resp") == ""


def test_answer_whose_log_is_gone_looks_the_same_without_the_reasoning() -> None:
    order = Call("c1", "order", '{"tea": 1}', "ordered")
    looks = Call("c2", "look", '{"city": "Oslo"}'), Call("c3", "look", "{}", "Sun")  # one was answered since
    steps = [Step('Hello "you"\né☃', [order]), Step("Now you.", looks)]
    log = remembered(Turn("assistant", answer_text(LOG), steps), LOG[-1])  # type: ignore[arg-type]
    gone, was = now(list(log), THEIRS)["output"], now(LOG, THEIRS)["output"][1:]
    for item in (*gone, *was):
        del item["id"]
    assert gone == was
    end = completed("Hi", "stop", None)
    assert remembered(Turn("assistant", "Hi"), end) == [TextDelta("Hi"), end]
    assert remembered(Turn("assistant", "", [Step("", [order])]), end)[0] == ToolStarted("c1", "order")


PAGE = Source("source_1", "https://a.example", "Rain", start=2, end=5)
PASSAGE = Source("source_2", None, "Weather", "doc_1", "page 3", 0.5, "Wet.")
BARE = Source("source_3", "https://b.example")
CITED = {"type": "url_citation", "url": "https://a.example", "title": "Rain", "start_index": 2, "end_index": 5}


def citations(output: Any) -> list[tuple[str, list[Any]]]:
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    return [(part["text"], part["annotations"]) for part in parts]


def test_sources_are_annotations_of_the_text_that_is_open() -> None:
    log: list[Event] = [TextDelta("It ra"), PAGE, TextDelta("ins."), PASSAGE, completed("It rains.", "stop", None)]
    events = parsed(told(log))
    places = [event["annotation_index"] for event in events if "annotation" in event["type"]]
    document = {"type": "file_citation", "file_id": "doc_1", "filename": "Weather", "index": 0}
    assert places == [0, 1]
    assert citations(events[-1]["response"]["output"]) == [("It rains.", [CITED, document])]
    [part] = [event["part"] for event in events if event["type"] == "response.content_part.done"]
    assert part["annotations"] == [CITED, document]


def test_source_between_two_texts_belongs_to_the_next_and_counts_in_it() -> None:
    calls: list[Event] = [ToolStarted("c1", "f"), ToolCalled("c1", "f", "{}"), ToolFinished("c1", "r")]
    later = Source("source_1", "https://a.example", "Rain", start=11, end=14)
    log: list[Event] = [TextDelta("I look. "), *calls, BARE, ReasoningDelta("Hm"), later, TextDelta(" It rains.")]
    bare = {"type": "url_citation", "url": BARE.url, "title": BARE.url, "start_index": 0, "end_index": 0}
    at = CITED | {"start_index": 3, "end_index": 6}
    whole = last([*log, PAGE, completed("I look.  It rains.", "stop", None)])["response"]["output"]
    before = CITED | {"start_index": 0, "end_index": 0}  # it is about the first text, which is done
    assert citations(whole) == [("I look. ", []), (" It rains.", [bare, at, before])]


def test_sources_that_no_text_follows_have_a_message_of_their_own() -> None:
    for end in (completed("", "stop", None), RunCancelled("requested")):
        log: list[Event] = [ReasoningDelta("Hm"), PASSAGE, PAGE, end]
        output = last(log)["response"]["output"]
        [(text, annotations)] = citations(output)
        assert (text, [one["type"] for one in annotations]) == ("", ["file_citation", "url_citation"])
        assert [item["type"] for item in output] == ["reasoning", "message"]
    unnamed = last([TextDelta("Hi"), Source("source_9"), completed("Hi", "stop", None)])["response"]["output"]
    file = {"type": "file_citation", "file_id": "source_9", "filename": "source_9", "index": 0}
    assert citations(unnamed) == [("Hi", [file])]


def test_answer_whose_log_is_gone_has_its_sources() -> None:
    end = completed("It rains.", "stop", None)
    log = remembered(Turn("assistant", "It rains.", sources=[PAGE, BARE]), end)
    assert log == [TextDelta("It rains."), PAGE, BARE, end]


def test_gap_in_the_log_is_noticed() -> None:
    encoder = ResponseEvents(NO_TERMS)
    encoder.opening(RUN, 0)
    encoder.encode("run_1", 1, LOG[:2])
    encoder.encode("run_1", 3, LOG[2:3])
    assert not encoder.folded
    encoder.encode("run_1", 7, LOG[6:])
    assert encoder.folded


def terms_for(log: list[Event], *, theirs: bool) -> Terms:
    """With ``theirs``, every other tool of the log is the client's."""
    names = sorted({event.name for event in log if isinstance(event, ToolStarted)})
    return Terms(tools=[ToolSpec(name, "", {}) for name in names[theirs::2]])


@given(log=logs, theirs=st.booleans(), data=st.data())
def test_stream_behind_any_event_is_the_rest_of_the_whole_one(
    log: list[Event], *, theirs: bool, data: st.DataObject
) -> None:
    terms = terms_for(log, theirs=theirs)
    whole = told(log, terms)
    number = data.draw(st.integers(0, len(whole) - 1))
    opening, *rest = told(log, terms, starting_after=number)
    assert opening == ": ping"
    assert rest == whole[number + 1 :]


@given(log=logs, data=st.data())
def test_stream_from_any_cursor_is_the_rest_too(log: list[Event], data: st.DataObject) -> None:
    whole = told(log)
    after = data.draw(st.integers(0, len(log)))
    opening, *rest = told(log, after=after)
    assert rest == whole[len(whole) - len(rest) :]
    assert opening == (whole[0] if after == 0 else ": ping")
    every = [int(line[10:]) for record in whole for line in record.split("\n") if line.startswith("id: run_1.")]
    shown = [int(line[10:]) for record in rest for line in record.split("\n") if line.startswith("id: run_1.")]
    assert shown == [seq for seq in every if seq > after]


@given(log=logs, theirs=st.booleans())
def test_any_run_is_told_in_the_clients_types_up_to_one_end(log: list[Event], *, theirs: bool) -> None:
    events = parsed(told(log, terms_for(log, theirs=theirs)))
    kinds = [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert ends(log[-1])
    terminal = {"response.completed", "response.failed", "response.incomplete"}
    assert [place for place, kind in enumerate(kinds) if kind in terminal] == [len(kinds) - 1]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == answer_text(log)
    messages = [item for item in events[-1]["response"]["output"] if item["type"] == "message"]
    assert "".join([item["content"][0]["text"] for item in messages]) == answer_text(log)


@given(log=logs, cuts=st.sets(st.integers(1, 12)))
def test_batches_make_no_difference(log: list[Event], cuts: set[int]) -> None:
    encoder = ResponseEvents(NO_TERMS)
    whole = encoder.opening(RUN, 0)
    places = [0, *sorted(cut for cut in cuts if cut < len(log)), len(log)]
    for start, end in pairwise(places):
        whole += encoder.encode("run_1", start + 1, log[start:end])
    assert whole.decode() == "\n\n".join([*told(log), ""])
