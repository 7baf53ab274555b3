"""Cites https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ModelError
from chat.sse import MAX_EVENT_BYTES, SSEDecoder

Event = tuple[str, str]


def decode(*reads: bytes) -> list[Event]:
    """All events of a stream that comes in these reads and then ends."""
    decoder = SSEDecoder()
    events = [event for data in reads for event in decoder.feed(data)]
    return [*events, *decoder.finish()]


def outcome(*reads: bytes) -> tuple[list[Event], str | None]:
    """The events, and the code of the error that ended them."""
    decoder = SSEDecoder()
    events: list[Event] = []
    try:
        for data in reads:
            events.extend(decoder.feed(data))
        events.extend(decoder.finish())
    except ModelError as error:
        return events, error.code
    return events, None


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("", "YHOO\n+2\n10")]),
        (b": test stream\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n", ["first", "second", " third"]),
        (b"data\n\ndata\ndata\n\ndata:", ["", "\n", ""]),
        (b"data:test\n\ndata: test\n\n", ["test", "test"]),
        (b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n", [("add", "73857293"), ("remove", "2153")]),
    ],
)
def test_examples_of_the_specification(stream: bytes, events: list[Event | str]) -> None:
    assert decode(stream) == [event if isinstance(event, tuple) else ("", event) for event in events]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_with_lf_cr_or_both(end: bytes) -> None:
    stream = end.join([b": hi", b"data: a", b"data: b", b"", b"event: x", b"data: c", b"", b""])
    assert decode(stream) == [("", "a\nb"), ("x", "c")]


def test_line_feed_behind_a_carriage_return_may_come_in_the_next_read() -> None:
    assert decode(b"data: a\r", b"\ndata: b\r", b"", b"\n\r", b"\n") == [("", "a\nb")]


def test_event_is_out_as_soon_as_its_empty_line_begins() -> None:
    decoder = SSEDecoder()
    assert list(decoder.feed(b"data: a\r\n\r")) == [("", "a")]
    assert list(decoder.feed(b"\ndata: b\n\n")) == [("", "b")]


def test_one_leading_byte_order_mark_is_dropped() -> None:
    assert decode(b"\xef\xbb", b"\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n") == [("", "a"), ("", "\ufeffb")]


def test_name_without_data_dispatches_nothing_and_is_forgotten() -> None:
    assert decode(b"event: error\n\ndata: a\n\n") == [("", "a")]


def test_other_fields_are_ignored() -> None:
    assert decode(b"id: 1\nretry: 5\nerrors: {}\nevents: x\ndatas: y\n data: z\ndata: a\n\n") == [("", "a")]


def test_error_as_a_field_is_an_event_of_that_name() -> None:
    assert decode(b"data: a\n\nerror: {}\n\ndata: b") == [("", "a"), ("error", " {}"), ("", "b")]
    assert outcome(b"error: " + b"x" * MAX_EVENT_BYTES) == ([], "upstream_invalid")


def test_last_event_counts_without_its_empty_line() -> None:
    assert decode(b"data: a\n\ndata: b") == [("", "a"), ("", "b")]
    assert decode(b"data: a\n\ndata: b\r") == [("", "a"), ("", "b")]


def test_invalid_utf8_is_replaced() -> None:
    assert decode(b"data: a\xffb\xc3\n\n") == [("", "a\ufffdb\ufffd")]
    assert decode(b"event: \xff\ndata: \xed\xa0\x80\n\n") == [("\ufffd", "\ufffd" * 3)]


def test_character_that_is_split_between_reads_is_whole() -> None:
    assert decode(b"data: \xf0\x9f", b"\x91\x8b\n\n") == [("", "\N{WAVING HAND SIGN}")]


def test_largest_event_passes() -> None:
    value = "x" * (MAX_EVENT_BYTES - len("data: "))
    assert decode(f"data: {value}\n\n".encode() * 2) == [("", value), ("", value)]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * MAX_EVENT_BYTES + b"\n\n",
        b"data: " + b"x" * MAX_EVENT_BYTES,
        b": " + b"x" * MAX_EVENT_BYTES + b"\n\n",
        b"data: x\n" * (MAX_EVENT_BYTES // 6) + b"\n",
        b"data:\n" * MAX_EVENT_BYTES,
        b"data\n" * MAX_EVENT_BYTES,
    ],
)
@pytest.mark.parametrize("size", [16 * 1024, 100 * MAX_EVENT_BYTES])
def test_event_that_is_too_large_is_refused_and_those_before_it_are_not(stream: bytes, size: int) -> None:
    stream = b"data: a\n\n" + stream
    reads = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert outcome(*reads) == ([("", "a")], "upstream_invalid")


def test_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    decoder = SSEDecoder()
    for _ in range(MAX_EVENT_BYTES // 1024):
        assert list(decoder.feed(b"x" * 1024)) == []
    with pytest.raises(ModelError, match="upstream_invalid"):
        list(decoder.feed(b"x"))


def test_comments_without_end_are_no_event() -> None:
    assert decode(*[b": ping\n"] * (MAX_EVENT_BYTES // 7 + 1), b"data: a\n\n") == [("", "a")]


fragments = st.sampled_from(
    [b"data:", b"data: ", b"data", b"event: e", b":", b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\xc3", b"\xa4"]
)
streams = st.lists(st.one_of(fragments, st.binary(max_size=3)), max_size=30).map(b"".join)


@given(streams, st.lists(st.integers(0, 90)))
def test_any_chunking_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    assert decode(*[stream[start:end] for start, end in pairwise(places)]) == decode(stream)


@given(streams)
def test_byte_by_byte_gives_the_same_events(stream: bytes) -> None:
    assert decode(*[bytes([byte]) for byte in stream]) == decode(stream)
