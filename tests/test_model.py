"""The adapter against a real socket: whole answers, broken ones, silent ones, and readers that leave."""

import asyncio
import tracemalloc
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from chat.errors import ModelError
from chat.events import ReasoningDelta, TextDelta, Usage
from chat.messages import CONTINUE, UNANSWERED
from chat.model import FINISH_GRACE
from chat.ports import Finished, ModelRequest
from chat.providers import Placeholders
from chat.sessions import Turn
from chat.steps import Call, Step
from chat.terms import ToolSpec
from tests.asking import (
    HELLO,
    INCOMPLETE,
    INVALID,
    KEY,
    REPORTED,
    TIMEOUT,
    UNREACHABLE,
    Kind,
    ask,
    kind,
    model_at,
    playing,
)
from tests.patience import soon
from tests.upstream import Action, End, Raw, chunk, completion, done, finish, reply, sse

# --- good answers ---------------------------------------------------------------------------------------------


async def test_answer_comes_in_parts_and_ends_with_reason_and_usage() -> None:
    async with playing(completion("Hello ", "world")) as (_, model):
        parts, error = await ask(model)
    assert error is None
    assert parts == [TextDelta("Hello "), TextDelta("world"), Finished("stop", Usage(7, 2))]


async def test_parts_are_given_out_as_they_come() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    answer = reply(chunk("a"), gates[0], sse({}), chunk("", reasoning="b"), gates[1], finish(), done())
    async with playing(answer) as (_, model), aclosing(model.stream(HELLO)) as reads:
        assert await soon(anext(reads)) == [TextDelta("a")]
        gates[0].set()
        assert await soon(anext(reads)) == [ReasoningDelta("b")]
        gates[1].set()
        assert await soon(anext(reads)) == [Finished("stop")]
        assert await soon(anext(reads, None)) is None


async def test_request_says_what_is_needed_and_no_more() -> None:
    turns = [Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hi!"), Turn("user", "How are you?")]
    async with playing(completion("Fine.")) as (upstream, model):
        await ask(model, ModelRequest(turns))
        request = await upstream.request(0)
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.body == {
        "model": "gpt-test",
        "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_tools_and_what_they_have_answered_are_told_to_the_model() -> None:
    asked = Call("call_1", "weather", '{"city": "Oslo"}', "It rains.")
    lost, failed = Call("call_2", "weather", '{"ci'), Call("call_3", "weather", "[]", error="No such city.")
    request = ModelRequest(
        [Turn("user", "Hi"), Turn("assistant", "Look: it rains.", [Step("Look: ", [asked])]), Turn("user", "And now?"),
         Turn("assistant", "", [Step("", [lost])])],
        steps=[Step("Again. ", [failed])],
        tools=[ToolSpec("weather", "The weather.", {"type": "object"}), ToolSpec("now", "", {}, strict=True)],
    )  # fmt: skip
    async with playing(completion("Rain.")) as (upstream, model):
        await ask(model, request)
        body = (await upstream.request(0)).body

    def called(call_id: str, arguments: str, text: str | None) -> dict[str, object]:
        function = {"name": "weather", "arguments": arguments}
        return {
            "role": "assistant",
            "content": text,
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        }

    def told(call_id: str, text: str) -> dict[str, object]:
        return {"role": "tool", "tool_call_id": call_id, "content": text}

    function = {"name": "weather", "description": "The weather.", "parameters": {"type": "object"}}
    strict = {"name": "now", "description": "", "parameters": {}, "strict": True}
    assert body["tools"] == [{"type": "function", "function": function}, {"type": "function", "function": strict}]
    assert body["messages"] == [
        {"role": "user", "content": "Hi"},
        called("call_1", '{"city": "Oslo"}', "Look: "),
        told("call_1", "It rains."),
        {"role": "assistant", "content": "it rains."},
        {"role": "user", "content": "And now?"},
        called("call_2", "{}", None),
        told("call_2", f"Error: {UNANSWERED}"),
        called("call_3", "{}", "Again. "),
        told("call_3", "Error: No such city."),
    ]


async def test_placeholders_stand_in_what_the_assistant_has_said_and_called() -> None:
    asked = Step("", [Call("call_1", "weather", "{}", "It rains.")])
    request = ModelRequest([Turn("user", "Hi"), Turn("assistant", "Rain.", [asked])], prefix="Ra", steps=[asked])
    wanted = Placeholders(message={"reasoning_content": " "}, call={"extra_content": {"google": {}}})
    async with playing(completion("in."), placeholders=wanted) as (upstream, model):
        await ask(model, request)
        first, *messages = (await upstream.request(0)).body["messages"]
    function = {"name": "weather", "arguments": "{}"}
    call = {"id": "call_1", "type": "function", "function": function, "extra_content": {"google": {}}}
    called = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": " "}
    told = {"role": "tool", "tool_call_id": "call_1", "content": "It rains."}
    said, begun = ({"role": "assistant", "content": text, "reasoning_content": " "} for text in ("Rain.", "Ra"))
    assert first == {"role": "user", "content": "Hi"}
    assert messages == [called, told, said, called, told, begun, {"role": "user", "content": CONTINUE}]


async def test_request_may_name_another_model() -> None:
    async with playing(completion("Fine.")) as (upstream, model):
        await ask(model, ModelRequest([Turn("user", "Hi")], model="gpt-other"))
        assert (await upstream.request(0)).body["model"] == "gpt-other"


async def test_prefix_is_shown_to_the_model_to_be_continued() -> None:
    async with playing(completion("ld")) as (upstream, model):
        await ask(model, ModelRequest([Turn("user", "Hi")], prefix="Hello wor"))
        messages = (await upstream.request(0)).body["messages"]
    assert messages == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello wor"},
        {"role": "user", "content": CONTINUE},
    ]


async def test_server_without_a_key_gets_some_key() -> None:
    async with playing(completion("a"), api_key="") as (upstream, model):
        assert (await ask(model))[1] is None
        assert (await upstream.request(0)).headers["authorization"] == "Bearer none"


async def test_missing_content_type_is_forgiven() -> None:
    async with playing(reply(chunk("a"), finish(), headers={"Content-Type": None})) as (_, model):
        assert await ask(model) == ([TextDelta("a"), Finished("stop")], None)


async def test_connection_serves_the_next_request() -> None:
    async with playing(completion("a")) as (upstream, model):
        await ask(model)
        await ask(model)
        first, second = upstream.requests
    assert first.closed is second.closed


async def test_hundreds_of_streams_run_at_once() -> None:
    gate = asyncio.Event()
    async with playing(reply(chunk("a"), gate, finish(), done())) as (upstream, model):
        answers = asyncio.gather(*(ask(model) for _ in range(150)))
        await upstream.request(149)
        gate.set()
        assert await soon(answers) == [([TextDelta("a"), Finished("stop")], None)] * 150


# --- the end of a stream --------------------------------------------------------------------------------------


async def test_end_mark_closes_the_upstream_before_the_last_parts_are_read() -> None:
    async with (
        playing(reply(chunk("a"), finish(), done(), End.HOLD)) as (upstream, model),
        aclosing(model.stream(HELLO)) as reads,
    ):
        assert (await soon(anext(reads)))[-1] == Finished("stop")
        await soon((await upstream.request(0)).closed.wait())


async def test_usage_behind_the_finish_reason_is_waited_for() -> None:
    gate = asyncio.Event()
    usage = sse({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    async with playing(reply(finish(), gate, usage, done())) as (upstream, model):
        answer = asyncio.create_task(ask(model))
        await upstream.request(0)
        gate.set()
        assert await soon(answer) == ([Finished("stop", Usage(3, 4))], None)


async def test_finish_reason_ends_the_answer_of_a_server_that_never_ends_it() -> None:
    async with playing(reply(chunk("a"), finish(), b": ping\n\n", End.HOLD), silence=60) as (upstream, model):
        start = asyncio.get_running_loop().time()
        assert await soon(ask(model)) == ([TextDelta("a"), Finished("stop")], None)
        assert asyncio.get_running_loop().time() - start == pytest.approx(FINISH_GRACE, abs=1)
        await soon((await upstream.request(0)).closed.wait())


@pytest.mark.parametrize("end", [[], [End.CLOSE], [End.ABORT]])
async def test_finish_reason_makes_any_end_a_good_one(end: Sequence[Action]) -> None:
    async with playing(reply(chunk("a"), finish(), *end)) as (_, model):
        assert await soon(ask(model)) == ([TextDelta("a"), Finished("stop")], None)


@pytest.mark.parametrize("end", [[], [done()], [End.CLOSE], [End.ABORT], [b'data: {"choi', End.CLOSE]])
async def test_stream_that_is_cut_keeps_its_parts_and_is_incomplete(end: Sequence[Action]) -> None:
    async with playing(reply(chunk("a"), *end)) as (_, model):
        parts, error = await soon(ask(model))
    assert parts == [TextDelta("a")]
    assert kind(error) == INCOMPLETE


async def test_malformed_http_chunk_is_a_cut() -> None:
    gate = asyncio.Event()
    async with (
        playing(reply(chunk("a"), gate, Raw(b"zz\r\n")), silence=60) as (_, model),
        aclosing(model.stream(HELLO)) as reads,
    ):
        assert await soon(anext(reads)) == [TextDelta("a")]
        gate.set()
        with pytest.raises(ModelError) as caught:
            await soon(anext(reads))
    assert kind(caught.value) == INCOMPLETE


async def test_malformed_http_chunk_that_comes_with_the_head_is_no_answer() -> None:
    async with playing(reply(Raw(b"zz\r\n"))) as (_, model):
        parts, error = await soon(ask(model))
    assert parts == []
    assert kind(error) == INVALID


async def test_body_that_is_not_compressed_as_it_says_is_a_cut() -> None:
    async with playing(reply(chunk("a"), finish(), headers={"Content-Encoding": "gzip"})) as (_, model):
        parts, error = await ask(model)
    assert parts == []
    assert kind(error) == INCOMPLETE


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: {\n\n", INVALID),
        (b"data: " + b"[" * 100_000 + b"\n\n", INVALID),
        (sse({"error": {"message": "secret", "code": 500}}), REPORTED),
        (b"event: error\ndata: secret\n\n", REPORTED),
    ],
)
async def test_bad_event_fails_keeps_the_parts_and_closes_the_upstream(data: bytes, expected: Kind) -> None:
    async with playing(reply(chunk("a") + data, End.HOLD)) as (upstream, model):
        parts, error = await soon(ask(model))
        await soon((await upstream.request(0)).closed.wait())
    assert parts == [TextDelta("a")]
    assert kind(error) == expected
    assert "secret" not in repr(error)


@pytest.mark.parametrize("choices", [None, [], 7, "x", [None], [7], [{"delta": 7}], [{"delta": {"content": 7}}]])
async def test_odd_choices_are_ignored(choices: object) -> None:
    async with playing(reply(sse({"choices": choices}), chunk("a"), finish(), done())) as (_, model):
        assert await ask(model) == ([TextDelta("a"), Finished("stop")], None)


async def test_characters_are_repaired_or_whole() -> None:
    surrogate = b'data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n'
    first, second = '{"choices": [{"delta": {"content": "ä'.encode(), b'\xff"}}]}\n\n'
    async with playing(reply(surrogate, b"data: " + first[:-1], first[-1:] + second, finish())) as (_, model):
        parts, _ = await ask(model)
    assert parts == [TextDelta("\ufffd"), TextDelta("ä\ufffd"), Finished("stop")]


async def test_huge_token_is_cut_short_in_bounded_memory() -> None:
    token = [b"x" * 65_536] * 1024  # 64 MiB
    async with playing(reply(b"data: ", *token, End.HOLD)) as (upstream, model):
        tracemalloc.start()
        parts, error = await soon(ask(model))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await soon((await upstream.request(0)).closed.wait())
    assert parts == []
    assert kind(error) == INVALID
    assert peak < 16 << 20


# --- silence --------------------------------------------------------------------------------------------------


async def test_no_first_part_in_time_is_a_timeout() -> None:
    async with playing(completion(), reply(End.HOLD), silence=20, first=1) as (upstream, model):
        await ask(model)  # what the first request takes longer for
        parts, error = await soon(ask(model))
        await soon((await upstream.request(1)).closed.wait())
    assert parts == []
    assert kind(error) == TIMEOUT


async def test_first_part_may_take_longer_than_the_next() -> None:
    async with playing(reply(0.3, chunk("a"), End.HOLD), silence=0.1, first=20) as (_, model):
        parts, error = await soon(ask(model))
    assert parts == [TextDelta("a")]
    assert kind(error) == TIMEOUT


async def test_first_part_may_be_due_sooner_than_the_next() -> None:
    async with playing(reply(chunk("a"), 1.2, finish()), reply(End.HOLD), silence=20, first=1) as (_, model):
        assert await soon(ask(model)) == ([TextDelta("a"), Finished("stop")], None)
        assert kind((await soon(ask(model)))[1]) == TIMEOUT


async def test_no_response_in_time_is_a_timeout() -> None:
    closed = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        closed.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server, model_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", silence=1) as model:
        parts, error = await soon(ask(model))
        await soon(closed.wait())
    assert parts == []
    assert kind(error) == TIMEOUT


@pytest.mark.parametrize(
    "noise", [b": ping\n\n", b"data:\n\n", sse({}), chunk(""), sse({"choices": []})], ids=lambda noise: noise[:20]
)
async def test_comments_and_empty_chunks_are_silence(noise: bytes) -> None:
    noises: list[Action] = [noise, 0.02] * 500
    async with playing(reply(chunk("a"), *noises), silence=0.2, first=20) as (upstream, model):
        parts, error = await soon(ask(model))
        await soon((await upstream.request(0)).closed.wait())
    assert parts == [TextDelta("a")]
    assert kind(error) == TIMEOUT


async def test_every_part_starts_the_silence_anew() -> None:
    texts: list[Action] = [0.15, chunk("a")] * 8
    async with playing(reply(*texts, finish(), done()), silence=1) as (_, model):
        parts, error = await soon(ask(model))
    assert error is None
    assert len(parts) == 9


async def test_reader_that_takes_its_time_is_not_the_upstreams_silence() -> None:
    gate = asyncio.Event()
    async with (
        playing(reply(chunk("a"), gate, chunk("b"), finish(), done()), silence=0.2, first=20) as (_, model),
        aclosing(model.stream(HELLO)) as reads,
    ):
        assert await soon(anext(reads)) == [TextDelta("a")]
        with pytest.raises(TimeoutError):  # what a reader does meanwhile
            await asyncio.wait_for(gate.wait(), 0.6)
        gate.set()
        rest = [part async for read in reads for part in read]
    assert rest == [TextDelta("b"), Finished("stop")]


# --- leaving --------------------------------------------------------------------------------------------------


async def test_closing_the_stream_closes_the_upstream() -> None:
    async with playing(reply(chunk("a"), End.HOLD)) as (upstream, model):
        reads = model.stream(HELLO)
        assert await soon(anext(reads)) == [TextDelta("a")]
        await reads.aclose()
        await soon((await upstream.request(0)).closed.wait())


@pytest.mark.parametrize("actions", [[End.HOLD], [chunk("a"), End.HOLD], [chunk("a"), finish(), End.HOLD]])
async def test_cancelling_the_reader_closes_the_upstream(actions: Sequence[Action]) -> None:
    async with playing(reply(*actions)) as (upstream, model):
        reader = asyncio.create_task(ask(model))
        request = await upstream.request(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(reader)
        await soon(request.closed.wait())


async def test_closing_the_model_ends_its_streams() -> None:
    async with playing(reply(chunk("a"), End.HOLD), silence=60) as (_, model):
        async with aclosing(model.stream(HELLO)) as reads:
            await soon(anext(reads))
            rest = asyncio.create_task(anext(reads))
            await asyncio.sleep(0)
            await model.close()
            with pytest.raises(ModelError) as caught:
                await soon(rest)
        assert kind(caught.value) == INCOMPLETE
        assert kind((await ask(model))[1]) == UNREACHABLE
