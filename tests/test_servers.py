"""What real servers stream, from tests/streams: its README.md says where each stream comes from."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.events import ReasoningDelta, TextDelta, ToolDelta, ToolStarted, Usage
from chat.ports import Finished, Part
from chat.upstream import CompletionDecoder
from tests.decoding import STREAMS, WAVE, decode, parts_of


@dataclass(frozen=True)
class Answer:
    """A whole answer, however it was cut into parts. ``label`` is that of a failure; then there is no ``reason``."""

    text: str = "Grüß dich!"
    thought: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    reason: str = "stop"
    usage: Usage | None = None
    label: str | None = None


def weather(oslo: str, rome: str, arguments: str = '{{"city":"{}"}}') -> tuple[tuple[str, str, str], ...]:
    """Two calls: their ids, name and arguments."""
    return (oslo, "weather", arguments.format("Oslo")), (rome, "weather", arguments.format("Rome"))


SPACED = '{{"city": "{}"}}'

# Made up by a model of random numbers that only a grammar holds back.
LLAMACPP = (
    ("BbACaYUkLxYyHc0dTrFzYt0v2MyD7u22", "weather", '{\n\t\t\t"city" : "Rome" }'),
    ("94c8OXikOz6GGvti9CXNZfjxWbinCl1W", "weather", '{\n"city" : "Rome"}'),
)
LITELLM = (
    ("l2yCB2yDFdQeqqwBcWPKfP5R94AWCeVP", *LLAMACPP[0][1:]),
    ("0Ch8ekL3O8CG1BSlhdmRGaDWrJ3Dm0wY", *LLAMACPP[1][1:]),
)


def failed(text: str, label: str, thought: str = "") -> Answer:
    return Answer(text, thought, reason="", label=label)


ANSWERS = {
    "aimock": Answer(usage=Usage(1, 3)),
    "aimock-tools": Answer(
        "Let me see.", "", weather("call_piubCH8AL8ajJf3x", "call_S0j0VGpbsObK5YCU"), "tool_calls", Usage(2, 14)
    ),
    "anthropic": Answer(usage=Usage(12, 8)),
    "anthropic-tools": Answer(
        "Let me look.",
        "",
        weather("toolu_011Yj5pGczhs1597iLQw3Rt7", "toolu_01ZkQ6qHdaitX2608jMYq6", SPACED),
        "tool_calls",
        Usage(612, 109),
    ),
    "anthropic-error": failed("Grüß", "api_error/invalid_request_error"),
    "azure": Answer(usage=Usage(19, 68, reasoning_tokens=64)),
    "azure-tools": Answer(
        "",
        "",
        weather("call_tWB9cKzjHmDzwRfYkGjHo7fY", "call_uXC0dLakInEaxSgZlHkIp8gZ"),
        "tool_calls",
        Usage(145, 176, reasoning_tokens=128),
    ),
    "deepseek": Answer(thought="Hmm, hello.", usage=Usage(9, 58, reasoning_tokens=51)),
    "deepseek-tools": Answer(
        "",
        "Two cities.",
        weather("call_00_MRi7F2sfOet5LgvlZL3W5236", "call_01_Qw8eR3tYuI1oPaSdFgHj4567", SPACED),
        "tool_calls",
        Usage(339, 83, cached_tokens=320, reasoning_tokens=39),
    ),
    "gemini": Answer(usage=Usage(8, 63, reasoning_tokens=59)),
    "gemini-tools": Answer(
        "",
        "",
        weather("function-call-18439433602034082669", "function-call-5160296140216539573"),
        "tool_calls",
        Usage(3379, 92, reasoning_tokens=68),
    ),
    "groq": Answer(thought="Okay, hello.", usage=Usage(18, 27, reasoning_tokens=20)),
    "groq-tools": Answer(
        "Let me look.", "", weather("functions.weather:0", "functions.weather:1"), "tool_calls", Usage(201, 58)
    ),
    "groq-error": failed("", "tool_use_failed/invalid_request_error", "We call it."),
    "litellm": Answer(usage=Usage(8, 5)),
    "litellm-reasoning": Answer(thought="Hmm.", usage=Usage(54, 9, cached_tokens=53, reasoning_tokens=2)),
    "litellm-tools": Answer("", "", LITELLM, "tool_calls", Usage(656, 118, cached_tokens=655)),
    "litellm-error": failed("Grüß", "500"),
    "llamacpp": Answer(thought="Hmm.", usage=Usage(54, 9, cached_tokens=14)),
    "llamacpp-tools": Answer("", "", LLAMACPP, "tool_calls", Usage(656, 118, cached_tokens=655)),
    "llamacpp-error": failed("Grüß", "", "Hmm."),
    "mistral": Answer(thought="Okay, hello. Well.", usage=Usage(10, 31)),
    "mistral-tools": Answer("", "", weather("g6fVbXS8K", "VzeppoSaq", SPACED), "tool_calls", Usage(159, 41)),
    "mistral-tools-bare": Answer("", "", weather("gSIMJiOkT", "hTJNKjPlU", SPACED), "tool_calls", Usage(124, 36)),
    "ollama": Answer(thought="Okay, a greeting.", usage=Usage(11, 31)),
    "ollama-tools": Answer("", "Two cities.", weather("call_x7rn5sl5", "call_5zat23rg"), "tool_calls", Usage(169, 55)),
    "openai": Answer(f"Grüß dich! {WAVE}", usage=Usage(19, 6)),
    "openai-tools": Answer(
        "",
        "",
        weather("call_cT8rVw2LxQn5ZkD1mYh9BfG7", "call_Jp4sNe0KuXb6WtR3oAi8CdM2"),
        "tool_calls",
        Usage(81, 46),
    ),
    "openai-refusal": Answer("I\N{RIGHT SINGLE QUOTATION MARK}d rather not.", usage=Usage(79, 5)),
    "openai-search": Answer(),
    "openai-error": failed("Grüß", "server_error"),
    "openrouter": Answer(thought="Okay, hello.", usage=Usage(9, 33, reasoning_tokens=12)),
    "openrouter-tools": Answer(
        "",
        "Two cities.",
        weather("toolu_bdrk_01L9pX1Wp4FAEq9TT2Z6UAe7", "toolu_bdrk_01M0qY2Xq5GBFr0UU3A7VBf8", SPACED),
        "tool_calls",
        Usage(626, 106, reasoning_tokens=54),
    ),
    "openrouter-error": failed("", "400", "We greet back"),
    "perplexity": Answer(usage=Usage(8, 3)),
    "together": Answer(usage=Usage(41, 3, cached_tokens=32)),
    "vertex-tools": Answer(
        "",
        "",
        weather(
            "function-call-c8553c1a-459a-46a4-a8ad-aa0a4e7c3563", "function-call-df0d08a4-ad74-46f1-ba4a-9353cbf288a8"
        ),
        "tool_calls",
        Usage(27, 549, reasoning_tokens=504),
    ),
    "vllm": Answer(thought="Okay, hello.", usage=Usage(13, 9)),
    "vllm-tools": Answer(
        "",
        "",
        weather("chatcmpl-tool-ca99dda515524c6a", "chatcmpl-tool-be38f1b7e4614d2c", SPACED),
        "tool_calls",
        Usage(171, 44),
    ),
    "vllm-error": failed("Grüß", "500/InternalServerError"),
    "xai": Answer(thought="First, hello.", usage=Usage(32, 103, cached_tokens=6, reasoning_tokens=94)),
    "xai-search": Answer(),
    "xai-tools": Answer(
        "",
        "Two cities.",
        weather("call_47876210", "call_97132951"),
        "tool_calls",
        Usage(466, 334, cached_tokens=192, reasoning_tokens=266),
    ),
}

WHOLE = [server for server, answer in ANSWERS.items() if answer.label is None]
FAILED = [server for server, answer in ANSWERS.items() if answer.label is not None]


def answer_of(stream: bytes) -> Answer:
    decoder = CompletionDecoder()
    parts = [*decoder.feed(stream), *decoder.finish()]
    names = {part.call_id: part.name for part in parts if isinstance(part, ToolStarted)}
    arguments = dict.fromkeys(names, "")
    for part in parts:
        if isinstance(part, ToolDelta):
            arguments[part.call_id] += part.text
    last = parts[-1]
    return Answer(
        "".join([part.text for part in parts if isinstance(part, TextDelta)]),
        "".join([part.text for part in parts if isinstance(part, ReasoningDelta)]),
        tuple((call_id, name, arguments[call_id]) for call_id, name in names.items()),
        last.reason if isinstance(last, Finished) else "",
        last.usage if isinstance(last, Finished) else None,
        decoder.label if decoder.failure is not None and decoder.failure.code == "upstream_error" else None,
    )


@pytest.mark.parametrize("server", STREAMS)
def test_every_server_is_understood(server: str) -> None:
    assert answer_of(STREAMS[server]) == ANSWERS[server]


def test_every_stream_has_a_line_that_says_where_it_comes_from() -> None:
    lines = (Path(__file__).parent / "streams/README.md").read_text().splitlines()
    named = [found[1] for line in lines if (found := re.match(r"\| `([a-z-]+)\.sse` \|", line))]
    assert named == sorted(STREAMS) == sorted(ANSWERS)


@pytest.mark.parametrize("server", WHOLE)
def test_without_the_end_mark_the_end_of_the_bytes_ends_the_answer(server: str) -> None:
    assert parts_of(STREAMS[server].removesuffix(b"data: [DONE]\n\n")) == parts_of(STREAMS[server])


@pytest.mark.parametrize("server", STREAMS)
def test_every_cut_leaves_a_prefix_and_never_a_complete_answer_without_its_reason(server: str) -> None:
    stream, (whole, _) = STREAMS[server], decode(STREAMS[server])
    said = [part for part in whole if not isinstance(part, Finished)]
    for end in range(len(stream)):
        parts, failure = decode(stream[:end])
        if failure is None:
            assert parts[:-1] == said
            assert isinstance(parts[-1], Finished)
            assert re.search(rb'"finish_reason":"(stop|tool_calls|length)"', stream[:end])
        else:
            assert failure.code == "upstream_incomplete" or server in FAILED
            assert parts == said[: len(parts)]


@pytest.mark.parametrize("server", STREAMS)
def test_byte_by_byte_gives_the_same_parts(server: str) -> None:
    stream = STREAMS[server]
    assert decoded(*[stream[place : place + 1] for place in range(len(stream))]) == decoded(stream)


@pytest.mark.parametrize("server", STREAMS)
def test_event_by_event_gives_the_same_parts(server: str) -> None:
    assert decoded(*re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", STREAMS[server])) == decoded(STREAMS[server])


@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(0, 9000), max_size=20))
def test_any_chunking_gives_the_same_parts(server: str, cuts: list[int]) -> None:
    stream = STREAMS[server]
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    assert decoded(*[stream[start:end] for start, end in pairwise(places)]) == decoded(stream)


def decoded(*reads: bytes) -> tuple[list[Part], str | None]:
    parts, failure = decode(*reads)
    return parts, failure.code if failure else None
