"""What the decoder makes of answers that are odd, broken or hostile; tests/test_servers.py has the real ones."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.events import ModelSelected, ReasoningDelta, Source, TextDelta, ToolStarted, Usage, payload_of
from chat.ports import Finished, Part
from chat.sse import MAX_EVENT_BYTES
from chat.upstream import (
    MAX_REASON_LENGTH,
    MAX_TOKENS,
    CompletionDecoder,
    error_label,
)
from tests.decoding import WAVE, decode, parts_of
from tests.upstream import chunk, done, finish, sse


def failure_of(*reads: bytes) -> tuple[list[Part], str, bool, bool]:
    parts, failure = decode(*reads)
    assert failure is not None
    return parts, failure.code, failure.retryable, failure.transient


INVALID = ("upstream_invalid", True, False)
INCOMPLETE = ("upstream_incomplete", True, True)
REPORTED = ("upstream_error", True, False)


@pytest.mark.parametrize("extra", [None, 7, [], {}, {"usage": 7}, {"usage": {"prompt_tokens": 1}}])
def test_extra_that_is_none_is_ignored(extra: object) -> None:
    assert parts_of(sse({"x_groq": extra}), finish()) == [Finished("stop")]


@pytest.mark.parametrize(
    "content",
    [
        [],
        [None],
        ["a"],
        [{"type": "text"}],
        [{"type": "thinking", "thinking": "hm"}],
        [{"type": "thinking", "thinking": [None, {}]}],
        [{"type": "image_url", "image_url": "x"}],
    ],
)
def test_content_in_pieces_that_are_none_is_ignored(content: list[object]) -> None:
    assert parts_of(sse({"choices": [{"delta": {"content": content}}]}), finish()) == [Finished("stop")]


def test_no_space_behind_the_colon_and_other_line_ends() -> None:
    stream = (chunk("a") + finish() + done()).replace(b"data: ", b"data:").replace(b"\n", b"\r\n")
    assert parts_of(stream) == [TextDelta("a"), Finished("stop")]


def test_json_over_several_data_lines() -> None:
    assert parts_of(b'data: {"choices":\ndata: [{"delta": {"content": "a"}}]}\n\n', finish(), done()) == [
        TextDelta("a"),
        Finished("stop"),
    ]


def test_empty_deltas_and_empty_events_give_nothing() -> None:
    decoder = CompletionDecoder()
    assert decoder.feed(chunk("") + b"data:\n\ndata:  \n\n: ping\n\n" + sse({})) == []
    assert not decoder.done


def test_end_mark_ends_at_once_and_what_follows_is_ignored() -> None:
    decoder = CompletionDecoder()
    assert decoder.feed(finish() + done() + chunk("more")) == [Finished("stop")]
    assert decoder.done
    assert decoder.feed(b"data: {\n\n") == []
    assert decoder.finish() == []
    assert decoder.failure is None


def test_end_mark_may_have_space_around_it() -> None:
    assert parts_of(finish(), b"data:  [DONE] \n\n") == [Finished("stop")]


def test_finish_reason_makes_the_answer_ending_but_not_done() -> None:
    decoder = CompletionDecoder()
    decoder.feed(chunk("a"))
    assert not decoder.ending
    decoder.feed(finish("length"))
    assert decoder.ending
    assert not decoder.done
    assert decoder.finish() == [Finished("length")]


def test_text_and_reason_may_come_in_one_chunk_with_reasoning_first() -> None:
    choice = {"delta": {"content": "b", "reasoning": "a"}, "finish_reason": "stop"}
    assert parts_of(sse({"choices": [choice]})) == [ReasoningDelta("a"), TextDelta("b"), Finished("stop")]


def test_refusal_is_the_answer_where_there_is_no_other() -> None:
    first, refusal = ({"content": None, "refusal": text} for text in ("", "No."))
    refusals = [sse({"choices": [{"delta": delta}]}) for delta in (first, refusal)]
    assert parts_of(*refusals, chunk("a", refusal="b"), finish())[:-1] == [TextDelta("No."), TextDelta("a")]


def test_only_the_first_choice_counts() -> None:
    def choice(index: object, text: str) -> dict[str, object]:
        return {"index": index, "delta": {"content": text}, "finish_reason": None}

    stream = sse({"choices": [choice(1, "no"), choice(0, "a"), choice(2, "no")]}) + sse({"choices": [choice(1, "no")]})
    assert parts_of(stream, sse({"choices": [choice(None, "b")]}), finish()) == [
        TextDelta("a"),
        TextDelta("b"),
        Finished("stop"),
    ]


ODD = [None, True, 0, 7, 1.5, "", "odd", [], [None], [7], ["odd"], {}, {"odd": 1}]


@pytest.mark.parametrize("odd", ODD, ids=json.dumps)
@pytest.mark.parametrize(
    "shape",
    [
        '{"choices": ODD}',
        '{"choices": [ODD]}',
        '{"choices": [{"index": ODD}]}',
        '{"choices": [{"delta": ODD}]}',
        '{"choices": [{"delta": {"role": ODD}}]}',
        '{"choices": [], "usage": ODD}',
        '{"choices": [], "usage": {"prompt_tokens": ODD, "completion_tokens": -1}}',
        '{"object": ODD}',
    ],
)
def test_what_is_not_as_it_should_be_is_ignored(shape: str, odd: object) -> None:
    stream = f"data: {shape.replace('ODD', json.dumps(odd))}\n\n".encode()
    assert parts_of(chunk("a"), stream, chunk("b"), finish()) == [TextDelta("a"), TextDelta("b"), Finished("stop")]


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd != "odd"], ids=json.dumps)
@pytest.mark.parametrize("field", ["content", "reasoning", "reasoning_content", "finish_reason"])
def test_what_is_no_text_is_no_delta_and_no_reason(field: str, odd: object) -> None:
    choice = {"delta": {field: odd}, field: odd}
    assert parts_of(sse({"choices": [choice]}), finish()) == [Finished("stop")]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2}, Usage(1, 2)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": "odd"}, Usage(0, 0)),
        ({"prompt_tokens": MAX_TOKENS - 1, "completion_tokens": 0}, Usage(MAX_TOKENS - 1, 0)),
        ({"prompt_tokens": MAX_TOKENS, "completion_tokens": 0}, None),
        ({"prompt_tokens": 1, "completion_tokens": -2}, None),
        ({"prompt_tokens": 1, "completion_tokens": True}, None),
        ({"prompt_tokens": 1, "completion_tokens": 2.0}, None),
        ({"prompt_tokens": 1}, None),
    ],
)
def test_usage_is_two_sane_numbers_or_none(usage: object, expected: Usage | None) -> None:
    assert parts_of(finish(), sse({"choices": [], "usage": usage})) == [Finished("stop", expected)]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}}, Usage(9, 5, cached_tokens=4)),
        ({"prompt_cache_hit_tokens": 4, "prompt_tokens_details": None}, Usage(9, 5, cached_tokens=4)),
        ({"completion_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 14}, Usage(9, 5, reasoning_tokens=3)),
        (
            {"completion_tokens_details": {"reasoning_tokens": 30}, "total_tokens": 44},
            Usage(9, 35, reasoning_tokens=30),
        ),
        ({"completion_tokens_details": {"reasoning_tokens": 6}, "total_tokens": 14}, Usage(9, 5)),
        ({"total_tokens": 44}, Usage(9, 35, reasoning_tokens=30)),
        ({"completion_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 44}, Usage(9, 5, reasoning_tokens=3)),
        ({"total_tokens": 13}, Usage(9, 5)),
        ({"total_tokens": 1 << 80}, Usage(9, 5)),
        ({"cached_tokens": 4}, Usage(9, 5, cached_tokens=4)),
        ({"prompt_tokens_details": {"cached_tokens": 10}}, Usage(9, 5)),
        ({"prompt_tokens_details": {"cached_tokens": -1}, "completion_tokens_details": []}, Usage(9, 5)),
        ({"prompt_tokens_details": {"cached_tokens": True}, "prompt_cache_hit_tokens": "4"}, Usage(9, 5)),
        ({"completion_tokens_details": {"reasoning_tokens": 1 << 80}, "total_tokens": 14 + (1 << 80)}, Usage(9, 5)),
    ],
)
def test_parts_of_usage_count_if_they_can_be_parts(more: dict[str, object], expected: Usage) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 5} | more
    assert parts_of(finish(), sse({"choices": [], "usage": usage})) == [Finished("stop", expected)]


@pytest.mark.parametrize("groq", [None, [], {"id": "req_1"}, {"usage": 5}])
def test_usage_is_found_in_groqs_envelope(groq: object) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    first = sse({"x_groq": groq, "choices": []})
    last = sse({"x_groq": {"id": "req_1", "usage": usage}, "choices": []})
    assert parts_of(first, finish(), last, done()) == [Finished("stop", Usage(9, 5))]


def test_last_usage_that_makes_sense_counts() -> None:
    first, last = ({"prompt_tokens": 1, "completion_tokens": count} for count in (2, 3))
    stream = b"".join(sse({"usage": usage}) for usage in (first, last, None, {"prompt_tokens": "many"}))
    assert parts_of(stream, finish(), done()) == [Finished("stop", Usage(1, 3))]


def test_reason_stays_a_word() -> None:
    assert parts_of(finish("\ud800" + "x" * 5000)) == [Finished("\ufffd" + "x" * (MAX_REASON_LENGTH - 1))]


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"a\ud83db", "a\ufffdb"),
        (r"\udc4b", "\ufffd"),
        (r"\ud83d\udc4b", WAVE),
        (r"\udc4b\ud83d", "\ufffd\ufffd"),
        (r"ä\ud83d\ud83d\udc4b", f"ä\ufffd{WAVE}"),
    ],
)
def test_lone_surrogates_are_replaced(escaped: str, text: str) -> None:
    stream = f'data: {{"choices": [{{"delta": {{"content": "{escaped}", "reasoning": "{escaped}"}}}}]}}\n\n'
    assert parts_of(stream.encode(), finish())[:2] == [ReasoningDelta(text), TextDelta(text)]


def test_invalid_utf8_is_replaced_and_split_characters_are_whole() -> None:
    stream = 'data: {"choices": [{"delta": {"content": "ä"}}]}\n\n'.encode()
    middle = stream.index("ä".encode()) + 1
    assert parts_of(stream[:middle], stream[middle:], finish()) == [TextDelta("ä"), Finished("stop")]
    assert parts_of(stream.replace(b"\xa4", b""), finish()) == [TextDelta("\ufffd"), Finished("stop")]


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"choices": [}',
        b"[]",
        b'"text"',
        b"7",
        b"null",
        b"hello",
        b"[DONE",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b"x" * MAX_EVENT_BYTES,
    ],
    ids=lambda data: data[:12],
)
def test_what_cannot_be_read_fails_and_keeps_what_came_before(data: bytes) -> None:
    stream = chunk("a") + b"data: " + data + b"\n\n" + chunk("never") + finish() + done()
    assert failure_of(stream) == ([TextDelta("a")], *INVALID)


def test_huge_token_fails_before_its_end_has_come() -> None:
    decoder = CompletionDecoder()
    assert decoder.feed(chunk("a") + b'data: {"choices": [{"delta": {"content": "') == [TextDelta("a")]
    reads = 0
    while not decoder.done:
        reads += 1
        assert decoder.feed(b"x" * 16_384) == []
    assert decoder.failure is not None
    assert decoder.failure.code == "upstream_invalid"
    assert reads == MAX_EVENT_BYTES // 16_384


@pytest.mark.parametrize(
    ("stream", "label"),
    [
        (sse({"error": {"message": "secret", "code": "rate_limit", "type": "limits"}}), "rate_limit/limits"),
        (sse({"error": {"message": "secret", "code": 500}, "choices": [{"finish_reason": "error"}]}), "500"),
        (sse({"error": "secret"}), ""),
        (sse({"error": {"code": "sk-proj-secret", "type": "secret secret"}}), ""),
        (b'event: error\ndata: {"code": 7, "message": "secret"}\n\n', "7"),
        (b"event: error\ndata: secret\n\n", ""),
        (b"event: error\ndata:\n\n", ""),
        (b"event: error\ndata: [DONE]\n\n", ""),
        (b'error: {"code": 500, "message": "secret"}\n\n', "500"),
        (sse({"object": "error", "message": "secret", "type": "BadRequestError", "code": 400}), "400/BadRequestError"),
    ],
)
@pytest.mark.parametrize("end", [b"", done()])
def test_reported_error_fails_without_the_upstreams_words(stream: bytes, label: str, end: bytes) -> None:
    decoder = CompletionDecoder()
    assert decoder.feed(chunk("a") + stream + end) == [TextDelta("a")]
    failure = decoder.failure
    assert failure is not None
    assert (failure.code, failure.retryable, failure.transient) == REPORTED
    assert "secret" not in f"{failure!r} {decoder.label}"
    assert decoder.label == label


def test_error_that_the_end_of_the_bytes_completes_is_reported() -> None:
    assert failure_of(chunk("a"), sse({"error": {"code": 1}}).strip()) == ([TextDelta("a")], *REPORTED)


@pytest.mark.parametrize("error", [None, False, "", {}, []])
def test_empty_error_is_none(error: object) -> None:
    assert parts_of(sse({"error": error, "choices": [{"finish_reason": "stop"}]})) == [Finished("stop")]


def test_other_event_names_are_read_like_none() -> None:
    assert parts_of(b"event: message\n" + chunk("a"), b"event: ping\ndata: {}\n\n", finish())[0] == TextDelta("a")


@pytest.mark.parametrize("end", [b"", done(), b'data: {"choices"', b"data: ", b"\xef"])
def test_answer_without_a_reason_is_incomplete(end: bytes) -> None:
    assert failure_of(chunk("a"), end) == ([TextDelta("a")], *INCOMPLETE)


def test_nothing_at_all_is_incomplete() -> None:
    assert failure_of() == ([], *INCOMPLETE)
    assert failure_of(b"<html>\n<body>No model here.</body>\n</html>\n\n") == ([], *INCOMPLETE)
    assert failure_of(b'{"error": {"message": "No model here."}}') == ([], *INCOMPLETE)


@given(st.lists(st.binary(max_size=40)))
def test_arbitrary_bytes_never_raise(reads: list[bytes]) -> None:
    decode(*reads)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "index",
                    "content",
                    "reasoning",
                    "finish_reason",
                    "usage",
                    "error",
                    "citations",
                    "annotations",
                ]
            ),
            inner,
        )
    ),
)


@given(st.lists(json_values))
def test_arbitrary_json_never_raises_and_gives_parts_that_can_be_stored(values: list[object]) -> None:
    parts, failure = decode(*[f"data: {json.dumps(value)}\n\n".encode() for value in values])
    assert isinstance(parts[-1] if parts else None, Finished) == (failure is None)
    for part in parts:
        match part:
            case Finished(reason):
                assert reason.encode()
            case ToolStarted(call_id, name):
                assert call_id.encode()
                assert name.encode()
            case Source():
                assert json.dumps(payload_of(part), ensure_ascii=False).encode()
            case ModelSelected():
                pytest.fail("no server says that")
            case _:
                assert part.text.encode()


def test_geminis_errors_come_in_a_list() -> None:
    error = {"code": 400, "message": "secret", "status": "INVALID_ARGUMENT"}
    assert error_label([{"error": error}]) == "400/INVALID_ARGUMENT"


@pytest.mark.parametrize("body", [None, [], [7], "x", {"error": None}, {"error": []}, {"code": None, "type": [1]}, {}])
def test_error_without_a_name_has_no_label(body: object) -> None:
    assert error_label(body) == ""
