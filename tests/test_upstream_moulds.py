"""Events cast in one mould: read without a parser, and to the same end."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ModelError
from chat.events import TextDelta
from chat.ports import Finished, Part
from chat.upstream import MISSES, CompletionDecoder
from tests.decoding import WAVE, decode, parts_of
from tests.upstream import chunk, finish


def bit_by_bit(*events: bytes) -> tuple[list[Part], ModelError | None]:
    """No read is a whole event, so every one is parsed."""
    return decode(*[bytes([byte]) for event in events for byte in event])


def outcome(decoded: tuple[list[Part], ModelError | None]) -> tuple[list[Part], str | None]:
    parts, failure = decoded
    return parts, failure.code if failure else None


def event(text: str, before: str, behind: str, *, ascii_only: bool) -> bytes:
    content = json.dumps(text, ensure_ascii=ascii_only)
    data = f'{{{before}"choices": [{{"delta": {{"content": {content}}}}}]{behind}}}'
    return f"data: {data}\n\n".encode(errors="surrogatepass")


events = st.builds(
    event,
    st.sampled_from(["a", "b", " \u2603", '"', "\\", "\n", "", "content", '"content":"', "\ud83d", "\x7f\x00", WAVE])
    | st.text(),
    st.sampled_from(["", '"id": "content", ', '"content": "other", ', '"id": "\\u0022", ']),
    st.sampled_from(["", ', "usage": null', ', "usage": {"prompt_tokens": 1, "completion_tokens": 2}', ', "error": 1']),
    ascii_only=st.booleans(),
)
spoilt = st.tuples(events, st.integers(0, 60), st.binary(max_size=3)).map(
    lambda it: it[0][: it[1]] + it[2] + it[0][it[1] :]
)


@given(st.lists(events | spoilt, max_size=12))
def test_reads_that_are_whole_events_give_what_their_bytes_give_one_by_one(reads: list[bytes]) -> None:
    assert outcome(decode(*reads)) == outcome(bit_by_bit(*reads))
    twice = [read for read in reads for _ in range(2)]  # so that moulds are used and not just made
    assert outcome(decode(*twice)) == outcome(bit_by_bit(*twice))
    together = [read + other for read, other in pairwise(reads)]  # and for several events at once
    made = [read for read, both in zip(reads, together, strict=False) for read in (read, both)]
    assert outcome(decode(*made)) == outcome(bit_by_bit(*made))


def test_events_that_come_together_need_no_parser_either(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = CompletionDecoder()
    assert decoder.feed(chunk("a")) == [TextDelta("a")]
    with monkeypatch.context() as patch:
        patch.setattr("chat.upstream._parse", None)
        assert decoder.feed(chunk("b") + chunk("") + chunk("c")) == [TextDelta("b"), TextDelta("c")]
    cut = chunk("d")[:-1]
    assert decoder.feed(chunk("e") + chunk("f", n=1) + cut) == [TextDelta("e"), TextDelta("f")]
    assert decoder.feed(b"\n" + finish()) == [TextDelta("d")]
    assert decoder.finish() == [Finished("stop")]


def test_mould_of_another_event_does_not_fit() -> None:
    same, other = chunk("a"), chunk("b").replace(b'"index": 0', b'"index": 1')
    assert parts_of(same, same, other, same, chunk(""), finish()) == [*[TextDelta("a")] * 3, Finished("stop")]


def test_text_that_is_no_utf8_is_replaced_in_a_mould_too() -> None:
    spoilt = chunk("a").replace(b'"a"', b'"\xff"')
    assert parts_of(chunk("a"), chunk("b"), spoilt, finish())[2] == TextDelta("\ufffd")


def test_ends_that_overlap_hold_no_text() -> None:
    long = b'data: {"choices":[{"delta":{"content":"a"}}],"x":"data: {}"}\n\n'
    short = long.replace(b':"a"', b':"')
    assert outcome(decode(long, short)) == outcome(bit_by_bit(long, short)) == ([TextDelta("a")], "upstream_invalid")


def test_server_that_puts_something_new_into_each_event_is_parsed_to_the_end() -> None:
    reads = [chunk(str(n), n=n) for n in range(3 * MISSES)]
    assert parts_of(*reads, finish())[:-1] == [TextDelta(str(n)) for n in range(3 * MISSES)]


def test_refusal_is_no_text_that_a_mould_is_made_of() -> None:
    refusal = chunk("", refusal="No.")
    assert parts_of(refusal, refusal, chunk("a", refusal="No."), finish())[:-1] == [
        *[TextDelta("No.")] * 2,
        TextDelta("a"),
    ]
