"""What a model's server sends: events, chunks and sources. And what the doctor is told by whatever answers it."""

import math
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chat.citations import Citations
from chat.errors import ModelError
from chat.events import ReasoningDelta, TextDelta, ToolDelta, ToolStarted
from chat.ports import Finished
from chat.sources import MAX_LABEL, MAX_SOURCES, MAX_TEXT, MAX_URL
from chat.sse import SSEDecoder
from chat.upstream import MAX_CALLS, MAX_NAME_LENGTH, MAX_REASON_LENGTH, MAX_TOKENS, CompletionDecoder
from doctor.probe import UnreachableError, _Watching
from tests.decoding import STREAMS
from tests.fuzz.strategies import cut, json_values, nearly, odd_texts, spliced, written

lines = st.lists(
    st.sampled_from([b"data:", b"data: ", b"event: x", b"event:", b"error: {}", b"id: 1", b": c", b"", b"\xef\xbb\xbf"])
    .flatmap(lambda start: st.binary(max_size=6).map(lambda rest: start + rest))
    .flatmap(lambda line: st.sampled_from([b"\n", b"\r", b"\r\n"]).map(lambda end: line + end)),
    max_size=12,
).map(b"".join)


def events_of(reads: list[bytes]) -> list[tuple[str, str]]:
    decoder = SSEDecoder()
    found = [event for data in reads for event in decoder.feed(data)]
    return [*found, *decoder.finish()]


@given(cut(lines | st.binary(max_size=60)))
def test_events_are_the_same_however_they_are_cut(reads: list[bytes]) -> None:
    assert events_of(reads) == events_of([b"".join(reads)])


chunks: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {
        "choices": st.just(
            [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "delta": {
                        "content": "Hi",
                        "reasoning_content": "Hm",
                        "annotations": [
                            {"type": "url_citation", "url_citation": {"url": "https://a.example", "start_index": 1}}
                        ],
                        "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": {"a": [1]}}}],
                    },
                }
            ]
        ),
        "usage": st.just(
            {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3,
             "completion_tokens_details": {"reasoning_tokens": 1}, "prompt_tokens_details": {"cached_tokens": 1}}
        ),
        "search_results": st.just([{"url": "https://a.example", "title": "A", "snippet": "B"}]),
        "citations": st.just(["https://b.example"]),
    },
    optional={"error": st.just({"message": "m", "code": 1}), "object": st.just("error"),
              "x_groq": st.just({"usage": {}})},
)  # fmt: skip

answers = st.lists(
    nearly(chunks).map(written) | odd_texts.map(lambda text: text.encode("utf-8", "replace")) | st.just(b"[DONE]"),
    max_size=5,
).map(lambda bodies: b"".join([b"data: " + body + b"\n\n" for body in bodies]))


@given(cut(answers | spliced(STREAMS)))
def test_answers_are_parts_or_a_failure(reads: list[bytes]) -> None:
    decoder = CompletionDecoder()
    parts = [part for data in reads for part in decoder.feed(data)]
    parts += decoder.finish()
    assert decoder.done
    assert isinstance(parts[-1] if parts else None, Finished) is (decoder.failure is None)
    begun: set[str] = set()
    for part in parts:
        match part:
            case TextDelta(text) | ReasoningDelta(text):
                assert text
                text.encode()  # no half of a character, which no store could hold
            case ToolStarted(call_id, name):
                assert 0 < len(name) <= MAX_NAME_LENGTH
                begun.add(call_id)
            case ToolDelta(call_id, text):
                assert call_id in begun
                text.encode()
            case Finished(reason, usage):
                assert 0 < len(reason) <= MAX_REASON_LENGTH
                assert usage is None or 0 <= usage.reasoning_tokens <= usage.output_tokens < 2 * MAX_TOKENS
    assert len(begun) <= MAX_CALLS
    assert len(decoder.label) <= 100


@given(st.lists(nearly(chunks), max_size=4))
def test_sources_are_bounded(drawn: list[Any]) -> None:
    citations = Citations()
    found = []
    for chunk in drawn:
        if isinstance(chunk, dict):
            choices = chunk.get("choices")
            choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
            found += citations.of(chunk, choice)
    assert len(found) <= MAX_SOURCES
    for source in found:
        assert source.url is not None
        assert source.url.startswith(("http://", "https://"))
        assert len(source.url) <= MAX_URL
        assert len(source.title or "") <= MAX_LABEL
        assert len(source.text or "") <= MAX_TEXT


reports = st.just(
    {"service": "p", "version": "1", "http_version": "1.1", "received": ["a"], "sent": ["B"], "body_limit": 10,
     "ping_seconds": 15.0}
)  # fmt: skip
told = st.one_of(
    st.tuples(st.just(b"doctor.report"), nearly(reports).map(written)),
    st.tuples(st.just(b"doctor.event"), nearly(st.just({"number": 1, "after": 0.5})).map(written)),
    st.tuples(
        st.just(b"doctor.event"), st.sampled_from([b'{"number": 1e999, "after": 1}', b'{"number": 1, "after": NaN}'])
    ),
    st.tuples(st.sampled_from([b"doctor.end", b"doctor.event", b""]), json_values.map(written)),
)


@given(
    cut(st.lists(told, max_size=4).map(lambda all_of: b"".join([b"event: %b\ndata: %b\n\n" % one for one in all_of])))
)
def test_the_doctor_understands_what_it_is_told_or_says_that_it_does_not(reads: list[bytes]) -> None:
    watching = _Watching(0.0, None)
    with suppress(UnreachableError):
        for data in reads:
            watching.enough(data)
    seen = watching.seen()
    if seen.report is not None:
        assert isinstance(seen.report.version, str)
        assert min(seen.report.body_limit, 1) >= 0
        assert math.isfinite(seen.report.ping_seconds)
    for arrival in seen.arrivals:
        assert math.isfinite(arrival.sent)


@given(st.binary(max_size=40))
def test_one_event_is_never_larger_than_it_may_be(start: bytes) -> None:
    decoder = SSEDecoder()
    with suppress(ModelError):
        for _ in range(40):
            assert all(len(data) <= 1 << 20 for _, data in decoder.feed(b"data: " + start * 1_000))
        assert len(decoder._line) <= 1 << 20
