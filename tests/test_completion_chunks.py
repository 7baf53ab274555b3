"""A run as OpenAI's chunks."""

import json
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
    Source,
    TextDelta,
    ToolCalled,
    ToolDelta,
    ToolFinished,
    ToolStarted,
    Usage,
    answer_text,
    completed,
    ends,
)
from handlers.formats.completions import CompletionChunks
from tests.stories import RUN
from tests.strategies import logs


def frames(log: list[Event], *, tools: tuple[str, ...] = (), usage: bool = False, after: int = 0) -> list[str]:
    encoder = CompletionChunks(tools, usage=usage)
    whole = encoder.opening(RUN, after) + encoder.encode("run_1", 1, log)
    *records, rest = whole.decode().split("\n\n")
    assert rest == ""
    return records


def chunks(records: list[str]) -> list[Any]:
    data = [line.removeprefix("data: ") for record in records for line in record.split("\n") if line[:6] == "data: "]
    return [json.loads(value) for value in data if value != "[DONE]"]


def test_stream_looks_as_openai_writes_it() -> None:
    end = completed("", "stop", Usage(3, 2, "reported", 1, 1))
    about = '"id": "chatcmpl-run_1", "object": "chat.completion.chunk", "created": 1795255200, "model": "scripted"'

    def chunk(delta: str, reason: str = "null") -> str:
        choice = f'{{"index": 0, "delta": {delta}, "logprobs": null, "finish_reason": {reason}}}'
        return f'data: {{{about}, "choices": [{choice}]}}'

    usage = (
        '{"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, '
        '"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}}'
    )
    assert frames([TextDelta('Hello "you"\n'), TextDelta("é"), end], usage=True) == [
        "id: run_1.0\n" + chunk('{"role": "assistant", "content": ""}'),
        "id: run_1.1\n" + chunk(r'{"content": "Hello \"you\"\n"}'),
        "id: run_1.2\n" + chunk('{"content": "é"}'),
        chunk("{}", '"stop"'),
        f'data: {{{about}, "choices": [], "usage": {usage}}}',
        "id: run_1.3\ndata: [DONE]",
    ]


def test_pages_are_annotations_in_one_chunk_before_the_end() -> None:
    """The npm client keeps the last list that it is sent, and the Python one wants an index in each entry."""
    page, passage = Source("source_1", "https://a.example", "A", start=1, end=3), Source("source_2", document="doc_1")
    bare = Source("source_3", "https://b.example")
    log: list[Event] = [page, TextDelta("Rain"), passage, bare, completed("Rain", "stop", None)]
    *_, annotated, end = chunks(frames(log))
    assert end["choices"][0]["finish_reason"] == "stop"
    assert annotated["choices"][0] == {
        "index": 0,
        "delta": {
            "annotations": [
                {
                    "index": 0,
                    "type": "url_citation",
                    "url_citation": {"url": "https://a.example", "title": "A", "start_index": 1, "end_index": 3},
                },
                {
                    "index": 1,
                    "type": "url_citation",
                    "url_citation": {"url": bare.url, "title": bare.url, "start_index": 0, "end_index": 0},
                },
            ]
        },
        "logprobs": None,
        "finish_reason": None,
    }
    assert len(frames([passage, completed("", "stop", None)])) == 3  # there is no annotation for a document


def test_only_the_clients_own_calls_are_told() -> None:
    log: list[Event] = [
        ReasoningDelta("hm"),
        ToolStarted("1", "ours"),
        ToolDelta("1", "{}"),
        ToolStarted("2", "theirs"),
        ToolStarted("3", "theirs"),
        ToolDelta("3", '{"a"'),
        ToolDelta("2", "{}"),
        ToolCalled("2", "theirs", "{}"),
        ToolFinished("1", "done"),
        Seam(2),
        completed("", "tool_calls", None),
    ]
    told = chunks(frames(log, tools=("theirs",), usage=True))
    assert [chunk["choices"][0]["delta"] for chunk in told[1:-1]] == [
        {"reasoning_content": "hm"},
        {"tool_calls": [{"index": 0, "id": "2", "type": "function", "function": {"name": "theirs", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "3", "type": "function", "function": {"name": "theirs", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert told[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert told[-1]["usage"] is None


def test_chunks_name_the_model_that_speaks_and_known_reasons() -> None:
    log: list[Event] = [ModelSelected("other", "fallback", "x"), TextDelta("Hi"), completed("Hi", "eos", None)]
    told = chunks(frames(log))
    assert [chunk["model"] for chunk in told] == ["scripted", "other", "other"]
    assert told[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (RunFailed("upstream_error", "It\nbroke", retryable=True), "upstream_error"),
        (RunCancelled("requested"), "run_cancelled"),
        (RunInterrupted("It died."), "run_interrupted"),
    ],
)
def test_bad_end_is_an_error_and_no_end_mark(end: Event, code: str) -> None:
    records = frames([TextDelta("Hi"), end])
    error = chunks(records)[-1]["error"]
    assert (error["code"], error["type"], error["param"]) == (code, "server_error", None)
    assert error["message"]
    assert "[DONE]" not in "".join(records)


def test_trouble_and_leaving_are_errors_too() -> None:
    encoder = CompletionChunks()
    encoder.opening(RUN, 0)
    for frame in (encoder.trouble(ChatError("store_unavailable", "Not now.")), encoder.leaving(700)):
        [error] = chunks(frame.decode().split("\n\n"))
        assert error["error"]["message"]
        assert not frame.startswith(b"id:")


@given(log=logs, data=st.data())
def test_stream_from_any_cursor_is_the_end_of_the_uninterrupted_one(log: list[Event], data: st.DataObject) -> None:
    whole = frames(log, tools=("t",), usage=True)
    after = data.draw(st.integers(0, len(log)))
    opening, *rest = frames(log, tools=("t",), usage=True, after=after)
    assert rest == whole[len(whole) - len(rest) :]
    assert opening == (whole[0] if after == 0 else ": ping")
    every = [int(line[10:]) for record in whole[1:] for line in record.split("\n") if line.startswith("id: run_1.")]
    shown = [int(line[10:]) for record in rest for line in record.split("\n") if line.startswith("id: run_1.")]
    assert shown == [seq for seq in every if seq > after]


@given(log=logs)
def test_text_joins_up_to_the_answer(log: list[Event]) -> None:
    said = [chunk["choices"][0]["delta"] for chunk in chunks(frames(log))[1:] if chunk.get("choices")]
    assert "".join([delta.get("content", "") for delta in said]) == answer_text(log)
    assert ends(log[-1])
