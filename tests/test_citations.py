"""What the decoder makes of what servers say their answers are from."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.events import Source, TextDelta, ToolStarted
from chat.ports import Finished, Part
from chat.sources import MAX_LABEL, MAX_PLACE, MAX_SOURCES, MAX_TEXT, MAX_URL, address, admitted, label, span
from tests.decoding import STREAMS, parts_of
from tests.upstream import chunk, done, finish, sse

SEA = "https://sea.example/tides?a=1#top"


def cited(url: object = SEA, **more: object) -> dict[str, object]:
    return {"type": "url_citation", "url_citation": {"url": url, **more}}


def sources(*reads: bytes) -> list[Source]:
    return [part for part in parts_of(*reads, finish(), done()) if isinstance(part, Source)]


def test_annotation_is_a_source_behind_the_text_it_comes_with() -> None:
    annotation = cited(title="Tides", start_index=2, end_index=5)
    assert parts_of(chunk("a"), chunk("b", annotations=[annotation]), finish(), done()) == [
        TextDelta("a"),
        TextDelta("b"),
        Source("", SEA, "Tides", start=2, end=5),
        Finished("stop"),
    ]


def test_annotations_come_in_the_whole_message_and_flat_and_with_a_passage_too() -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "no", "annotations": [cited(content=" The sea. ")]}}]}
    flat = {"type": "url_citation", "url": "http://sand.example", "title": "", "start_index": 0, "end_index": 4}
    assert sources(chunk("a"), sse(whole), chunk("b", annotations=[flat])) == [
        Source("", SEA, text="The sea."),
        Source("", "http://sand.example", start=0, end=4),
    ]


def test_calls_stand_behind_the_sources_of_the_text_before_them() -> None:
    calls = [{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}]
    kinds = [type(part) for part in parts_of(chunk("a", annotations=[cited()], tool_calls=calls), finish())]
    assert kinds == [TextDelta, Source, ToolStarted, Finished]


def test_lists_beside_the_choices_are_told_once() -> None:
    """Perplexity repeats them in every event; xAI has addresses alone, and perhaps in an event without a choice."""
    results = [{"title": "Tides", "url": SEA, "date": None, "snippet": "Twice a day."}]
    event = {"search_results": results, "citations": [SEA, "http://sand.example"], "choices": []}
    more = event | {"citations": [SEA, "http://sand.example", "http://dune.example"]}
    assert sources(sse(event), sse(event), sse(more), sse(more)) == [
        Source("", SEA, "Tides", text="Twice a day."),
        Source("", "http://sand.example"),
        Source("", "http://dune.example"),
    ]
    assert sources(STREAMS["openai-search"]) == [
        Source("", "https://example.com/greetings?utm_source=openai", "Greetings", start=0, end=9)
    ]
    assert [found.url for found in sources(STREAMS["xai-search"])] == [
        "https://example.com/greetings",
        "https://example.com/hello",
    ]
    assert sources(STREAMS["perplexity"]) == [
        Source("", "https://example.com/greetings", "Greetings", text="How people greet.")
    ]


def test_same_page_at_the_same_place_is_one_source() -> None:
    first, again, elsewhere = (cited(start_index=start, end_index=9) for start in (0, 0, 3))
    found = sources(chunk("a", annotations=[first, again]), chunk("b", annotations=[again, elsewhere]))
    assert [source.start for source in found] == [0, 3]


def test_text_that_is_cast_in_the_same_mould_as_one_with_sources_is_all_there() -> None:
    """The same annotations in every event, as the text around them: they are read but once, and nothing is lost."""
    stream = [chunk(text, annotations=[cited()]) for text in "abc"] + [
        chunk("d", annotations=[cited("http://b.example")])
    ]
    parts = parts_of(*stream, finish(), done())
    assert "".join([part.text for part in parts if isinstance(part, TextDelta)]) == "abcd"
    assert [part.url for part in parts if isinstance(part, Source)] == [SEA, "http://b.example"]


ODD: list[Any] = [None, True, 7, 1.5, "", "odd", [], {}, [None], {"url": None}, {"url_citation": None}, [[]]]


@pytest.mark.parametrize("odd", ODD, ids=json.dumps)
def test_what_does_not_look_as_it_should_is_ignored(odd: object) -> None:
    odd_ones = [
        sse({"choices": [{"index": 0, "delta": {"content": "b", "annotations": odd}, "message": odd}]}),
        sse({"choices": [{"index": 0, "delta": odd, "message": {"annotations": [odd, cited(odd)]}}]}),
        sse({"search_results": odd, "citations": [odd], "choices": []}),
    ]
    said: list[Part] = [TextDelta("a"), TextDelta("b"), Finished("stop")]
    assert parts_of(chunk("a"), *odd_ones, finish(), done()) == said


@pytest.mark.parametrize("odd", [*ODD, -1, MAX_PLACE, "2"], ids=json.dumps)
def test_span_that_is_none_leaves_the_page(odd: object) -> None:
    for start, end in ((odd, 9), (0, odd)):
        if span(start, end) is None:
            found = sources(chunk("a", annotations=[cited(start_index=start, end_index=end)]))
            assert found == [Source("", SEA)]


def test_span_is_two_places_of_which_the_first_comes_first() -> None:
    assert span(0, 1) == (0, 1)
    assert span(3, 3) is span(4, 3) is span(-1, 3) is span(0, MAX_PLACE) is None


@pytest.mark.parametrize("url", ["http://a.example", "HTTPS://A.example:8/ü?q=1&b=[2]#c", "https://[::1]/"])
def test_address_of_a_page_is_kept_as_it_is(url: str) -> None:
    assert address(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "javascript:alert(1)",
        "JavaScript://a.example/%0aalert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://a.example",
        "//a.example",
        "/a",
        "a.example",
        "https:",
        "https://",
        "https:///a",
        "http://[",
        " https://a.example",
        "java\nscript:alert(1)",
        "https://a.example/\r\nX: 1",
        "https://a.example/<script>",
        'https://a.example/"onclick="x',
        "https://a.example\\@b.example",
        "https://a.example/\u202egpj.exe",
        "https://a.example/\u200b",
        "https://a.example/\0",
        "https://a.example/" + "a" * MAX_URL,
    ],
    ids=repr,
)
def test_what_is_no_page_is_no_source(url: str) -> None:
    assert address(url) is None
    assert sources(chunk("a", annotations=[cited(url)]), sse({"citations": [url]})) == []


def test_lone_surrogates_are_replaced_and_never_stored() -> None:
    found = sources(
        rb'data: {"citations": ["https://a.example/\ud83d"], "search_results": [{"url": "'
        + SEA.encode()
        + rb'", "title": "\ud83d"}]}'
        + b"\n\n"
    )
    assert [(source.url, source.title) for source in found] == [(SEA, "\ufffd"), ("https://a.example/\ufffd", None)]


def test_long_words_are_cut_and_too_many_pages_left_out() -> None:
    [found] = sources(chunk("a", annotations=[cited(title="t" * 9_999, content="c" * 99_999)]))
    assert found.title is not None
    assert found.text is not None
    assert (len(found.title), found.title[-2:]) == (MAX_LABEL, "t…")
    assert (len(found.text), found.text[-2:]) == (MAX_TEXT, "c…")
    many = [f"https://a.example/{number}" for number in range(MAX_SOURCES * 100)]
    assert [source.url for source in sources(sse({"citations": many}), sse({"citations": many[::-1]}))] == many[
        :MAX_SOURCES
    ]
    assert sources(sse({"citations": [None] * 10_000 + many})) == []  # nobody looks so far


def test_label_is_words_or_nothing() -> None:
    assert label(" a\n") == "a"
    assert label(None) is label("") is label(" \n") is None
    assert label("x" * MAX_LABEL) == "x" * MAX_LABEL


def test_run_has_each_source_once_and_names_it() -> None:
    first = admitted(Source("", SEA, start=1, end=3), [], 10)
    assert first == Source("source_1", SEA, start=11, end=13)
    assert admitted(Source("", SEA, "Another title", start=11, end=13), [first], 0) is None
    second = admitted(Source("theirs", None, document="doc_1", place="page 3"), [first], 10)
    assert second == Source("source_2", None, document="doc_1", place="page 3")
    assert admitted(Source("", SEA), [first] * (MAX_SOURCES - 1), 0) is not None
    assert admitted(Source("", SEA), [first] * MAX_SOURCES, 0) is None


@given(st.text())
def test_any_text_is_an_address_or_none(url: str) -> None:
    assert address(url) in (None, url)
    assert address(f"https://{url}") in (None, f"https://{url}")
