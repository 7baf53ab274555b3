import json
from typing import NamedTuple

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st

from chat.events import (
    Event,
    ReasoningDelta,
    RunCancelled,
    RunFailed,
    RunInterrupted,
    Seam,
    TextDelta,
    ToolApproval,
    Usage,
    answer_text,
    completed,
    name_of,
    payload_of,
)
from handlers.formats import FORMATS, LINES, Encoder
from handlers.formats.frames import notice, retry
from tests.stories import RUN
from tests.strategies import logs, texts

ENCODERS = {**FORMATS, "lines": LINES}

encoders = pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS.keys())


class Frame(NamedTuple):
    event: str
    id: str
    data: str
    retry: int | None


def received(frames: bytes) -> list[Frame]:
    """As a client's library reads them. Frames without data come, too, because it shows every change of the id."""
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=frames)
    return [Frame(sse.event, sse.id, sse.data, sse.retry) for sse in EventSource(response).iter_sse()]


def normal(text: str) -> str:
    """The specification knows one kind of line end in data."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@encoders
@given(log=logs, data=st.data())
def test_frames_from_any_cursor_are_the_end_of_the_uninterrupted_ones(
    encoder: Encoder, log: list[Event], data: st.DataObject
) -> None:
    whole = encoder.encode("run_1", 1, log)
    after = data.draw(st.integers(0, len(log)))
    rest = encoder.encode("run_1", after + 1, log[after:])
    assert whole == encoder.encode("run_1", 1, log[:after]) + rest
    assert received(whole)[after:] == received(rest)


@encoders
@given(log=logs)
def test_every_event_moves_the_cursor(encoder: Encoder, log: list[Event]) -> None:
    frames = encoder.encode("run_1", 1, log)
    ids = [line for line in frames.split(b"\n") if line.startswith(b"id: ")]
    assert ids == [f"id: run_1.{seq}".encode() for seq in range(1, len(log) + 1)]
    assert frames.endswith(b"\n\n")
    assert frames.count(b"\n\nid: ") == len(log) - 1


@given(log=logs)
def test_plain_text_joins_up_to_the_answer(log: list[Event]) -> None:
    for encoder in (FORMATS["text"], LINES):
        text = "".join([frame.data for frame in received(encoder.encode("run_1", 1, log[:-1]))])
        assert text == "".join([normal(event.text) for event in log if isinstance(event, TextDelta)])


@given(st.lists(texts, min_size=1, max_size=10))
def test_plain_text_has_a_frame_for_every_delta(pieces: list[str]) -> None:
    frames = FORMATS["text"].encode("run_1", 1, [TextDelta(piece) for piece in pieces])
    assert [frame.data for frame in received(frames)] == [normal(piece) for piece in pieces]


@given(log=logs)
def test_named_events_say_all_that_the_log_says(log: list[Event]) -> None:
    frames = received(FORMATS["events"].encode("run_1", 1, log))
    assert [frame.event for frame in frames] == [name_of(event) for event in log]
    assert [json.loads(frame.data) for frame in frames] == [payload_of(event) for event in log]
    text = "".join([json.loads(frame.data)["text"] for frame in frames if frame.event == "text.delta"])
    assert text == answer_text(log)


def test_plain_text_looks_as_it_is_written_down() -> None:
    log: list[Event] = [TextDelta("Hello "), ReasoningDelta("hm"), TextDelta("two\nlines"), Seam(2)]
    log.append(completed("", "stop", None))
    frames = FORMATS["text"].encode("run_1", 1, log)
    assert frames.decode().split("\n\n") == [
        "id: run_1.1\ndata: Hello ",
        "id: run_1.2",
        "id: run_1.3\ndata: two\ndata: lines",
        "id: run_1.4",
        "id: run_1.5\ndata: [DONE]",
        "",
    ]
    assert LINES.encode("run_1", 5, log[4:]) == b"id: run_1.5\n\n"


@pytest.mark.parametrize("encoder", [FORMATS["text"], LINES], ids=["text", "lines"])
def test_call_that_waits_is_told_in_plain_text_beside_the_text(encoder: Encoder) -> None:
    frames = encoder.encode("run_1", 7, [ToolApproval("call\n1")])
    assert frames == b"id: run_1.7\n: a call waits for a yes, see GET /runs/run_1\n\n"
    assert received(frames) == [Frame("message", "run_1.7", "", None)]


@pytest.mark.parametrize("encoder", [FORMATS["text"], LINES], ids=["text", "lines"])
@pytest.mark.parametrize(
    "end", [RunFailed("upstream_error", "It\nbroke", retryable=True), RunCancelled("requested"), RunInterrupted("died")]
)
def test_bad_end_is_named_in_plain_text(encoder: Encoder, end: Event) -> None:
    [frame] = received(encoder.encode("run_1", 7, [end]))
    assert (frame.event, frame.id, json.loads(frame.data)) == (name_of(end), "run_1.7", payload_of(end))
    assert frame.event not in ("error", "message")  # EventSource means other things by these


def test_completed_event_proves_the_answer_to_the_client() -> None:
    [frame] = received(FORMATS["events"].encode("run_1", 3, [completed("Hi", "stop", Usage(3, 2))]))
    assert json.loads(frame.data) == {
        "finish_reason": "stop",
        "text_length": 2,
        "text_sha256": "3639efcd08abb273b1619e82e78c29a7df02c1051b1820e99fc395dcaa3326b8",
        "usage": {"input_tokens": 3, "output_tokens": 2, "source": "reported"},
    }


def test_opening_carries_the_cursor_and_dispatches_nothing_in_plain_text() -> None:
    for encoder in (FORMATS["text"], LINES):
        assert encoder.opening(RUN, 0) == b"id: run_1.0\n\n"
        assert encoder.opening(RUN, 12) == b"id: run_1.12\n\n"


def test_opening_tells_which_run_it_is() -> None:
    [frame] = received(FORMATS["events"].opening(RUN, 12))
    assert (frame.event, frame.id) == ("run.started", "run_1.12")
    assert json.loads(frame.data) == {
        "run_id": "run_1",
        "session_id": "ses_1",
        "message_id": "msg_1",
        "answer_id": "msg_2",
        "model": "scripted",
        "status": "running",
    }


def test_notice_and_retry_leave_the_cursor_where_it_is() -> None:
    [frame] = received(notice("stream.error", {"code": "store_unavailable", "message": "Not\nnow ☃"}))
    assert (frame.event, frame.id) == ("stream.error", "")
    assert json.loads(frame.data) == {"code": "store_unavailable", "message": "Not\nnow ☃"}
    [frame] = received(retry(1500))
    assert (frame.retry, frame.id, frame.data) == (1500, "", "")
