"""OpenAI's client for JavaScript, unmodified: the npm package drives both of its protocols."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.live.conftest import Serve
from tests.live.openai_clients import LOOK, TOOL, NpmClient, NpmError, calling_ours, looking, npm_client, talking, user
from tests.live.service import Service
from tests.upstream import Reply, Upstream, chunk, completion, done, finish, refusal, reply, thought

WORDS = "One two three four five six seven eight."


@asynccontextmanager
async def calls(serve: Serve, *replies: Reply, **settings: str) -> AsyncIterator[tuple[NpmClient, Service, Upstream]]:
    async with talking(serve, *replies, **settings) as (_, service, upstream), npm_client(service) as npm:
        yield npm, service, upstream


def text_of(events: list[Any]) -> str:
    return "".join([event["delta"] for event in events if event["type"] == "response.output_text.delta"])


# --- chat completions


@pytest.mark.client("OpenAI npm, chat completions", "send", "stream")
async def test_completion_is_streamed_with_usage_and_whole(serve: Serve) -> None:
    async with calls(serve, completion("Hello ", "there", reason="length")) as (npm, _, upstream):
        asked = {"model": "scripted", "messages": [user("Hi")], "temperature": 0.5}
        chunks = await npm(
            "chat.completions.create", {**asked, "stream": True, "stream_options": {"include_usage": True}}
        )
        said = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        assert "".join([choice["delta"].get("content", "") for choice in said]) == "Hello there"
        assert (said[-1]["finish_reason"], chunks[-1]["usage"]["total_tokens"]) == ("length", 9)
        assert (await upstream.request(0)).body["temperature"] == 0.5
        whole = await npm("chat.completions.create", asked)
        assert whole["choices"][0]["message"]["content"] == "Hello there"
        assert await npm("chat.completions.stream", {**asked, "stream": True}, final="finalContent") == "Hello there"
        assert [model["id"] for model in await npm("models.list")] == ["scripted"]


@pytest.mark.client("OpenAI npm, chat completions", "tools")
async def test_completion_calls_the_clients_tools(serve: Serve) -> None:
    async with calls(serve, looking("call_1", "Oslo"), completion("It rains.")) as (npm, _, upstream):
        asked = {"model": "scripted", "messages": [user("Weather?")], "tools": [LOOK], "stream": True}
        message = await npm("chat.completions.stream", asked, final="finalMessage")
        [call] = message["tool_calls"]
        assert (call["id"], call["function"]["arguments"]) == ("call_1", '{"city": "Oslo"}')
        result = {"role": "tool", "tool_call_id": "call_1", "content": "Rain"}
        answer = await npm(
            "chat.completions.create", {**asked, "stream": False, "messages": [user("Weather?"), message, result]}
        )
        assert answer["choices"][0]["message"]["content"] == "It rains."
        assert (await upstream.request(1)).body["messages"][2] == result


@pytest.mark.client("OpenAI npm, chat completions", "stop", "errors")
async def test_completion_that_fails_or_is_stopped_raises(serve: Serve) -> None:
    gate = asyncio.Event()
    async with calls(serve, refusal(401), refusal(400), reply(chunk("Half "), gate)) as (npm, service, upstream):
        asked = {"model": "scripted", "messages": [user("Hi")]}
        with pytest.raises(NpmError) as failed:
            await npm("chat.completions.create", asked)
        assert (failed.value.error["status"], failed.value.error["code"]) == (502, "upstream_auth")
        with pytest.raises(NpmError) as within:
            await npm("chat.completions.create", {**asked, "stream": True})
        assert within.value.error["code"] == "upstream_rejected"
        waiting = asyncio.create_task(npm("chat.completions.create", {**asked, "stream": True}))
        await upstream.request(2)
        [(run_id,)] = service.rows("SELECT id FROM runs WHERE status = 'running'")
        await service.client.post(f"/runs/{run_id}/cancel")
        with pytest.raises(NpmError) as stopped:
            await waiting
        assert stopped.value.error["code"] == "run_cancelled"


# --- responses


@pytest.mark.client("OpenAI npm, responses", "send", "stream")
async def test_response_is_streamed_and_whole(serve: Serve) -> None:
    thinking = thought("Hm.")
    answer = reply(thinking, chunk("Hello "), chunk("there"), finish(), done())
    async with calls(serve, answer) as (npm, _, _):
        asked = {"model": "scripted", "input": "Hi", "metadata": {"a": "b"}}
        streamed = await npm("responses.stream", asked, final="finalResponse")
        assert (streamed["output_text"], streamed["status"]) == ("Hello there", "completed")
        assert [item["type"] for item in streamed["output"]] == ["reasoning", "message"]
        kept = await npm("responses.retrieve", streamed["id"])
        assert [item["id"] for item in kept["output"]] == [item["id"] for item in streamed["output"]]
        assert kept["output_text"] == "Hello there"
        again = await npm(
            "responses.stream", {"response_id": streamed["id"], "starting_after": 3}, final="finalResponse"
        )
        assert again["output"] == streamed["output"]
        assert (await npm("responses.create", asked))["output_text"] == "Hello there"


@pytest.mark.client("OpenAI npm, responses", "stream", "resume")
async def test_response_that_is_cut_behind_any_event_goes_on_there(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.02")
    async with npm_client(service) as npm:
        whole = await npm("responses.create", {"input": WORDS, "stream": True})
        assert text_of(whole) == WORDS
        for number in range(1, len(whole)):
            events = await npm("responses.create", {"input": WORDS, "stream": True, "background": True}, take=number)
            response_id = events[0]["response"]["id"]
            while events[-1]["type"] != "response.completed":
                after = {"stream": True, "starting_after": events[-1]["sequence_number"]}
                events += await npm("responses.retrieve", response_id, after, take=5)
            assert [event["sequence_number"] for event in events] == list(range(len(whole)))
            assert text_of(events) == WORDS


@pytest.mark.client("OpenAI npm, responses", "resume")
async def test_killed_service_only_interrupts(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.1", LEASE_SECONDS="1")
    async with npm_client(service) as npm:
        events = await npm("responses.create", {"input": WORDS, "stream": True, "background": True}, take=6)
        await service.restart()
        after = {"stream": True, "starting_after": events[-1]["sequence_number"]}
        events += await npm("responses.retrieve", events[0]["response"]["id"], after)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert (text_of(events), events[-1]["type"]) == (WORDS, "response.completed")


@pytest.mark.client("OpenAI npm, responses", "stop")
async def test_background_response_is_polled_stopped_and_continued(serve: Serve) -> None:
    async with calls(serve, reply(chunk("Half "), asyncio.Event()), completion("Whole")) as (npm, _, upstream):
        started = await npm("responses.create", {"input": "Hi", "background": True})
        assert started["status"] == "in_progress"
        half = await npm("responses.retrieve", started["id"], {"stream": True}, take=5)
        assert text_of(half) == "Half "
        assert (await npm("responses.retrieve", started["id"]))["output_text"] == "Half "
        stopped = await npm("responses.cancel", started["id"])
        assert (stopped["status"], stopped["output"][0]["content"][0]["text"]) == ("cancelled", "Half ")
        [end] = await npm("responses.retrieve", started["id"], {"stream": True, "starting_after": 4})
        assert (end["type"], end["response"]["status"]) == ("response.failed", "cancelled")
        assert await npm("responses.retrieve", started["id"], {"stream": True, "starting_after": 5}) == []
        more = await npm("responses.create", {"input": "Go on", "previous_response_id": started["id"]})
        assert more["output_text"] == "Whole"
        assert (await upstream.request(1)).body["messages"][1:] == [
            {"role": "assistant", "content": "Half "},
            user("Go on"),
        ]


@pytest.mark.client("OpenAI npm, responses", "tools")
async def test_response_calls_the_clients_tools_and_ours(serve: Serve) -> None:
    replies = looking("call_1", "Oslo"), calling_ours(), completion("Reported.")
    async with calls(serve, *replies, TOOLS="examples.town_hall") as (npm, _, upstream):
        first = await npm("responses.stream", {"input": "Weather?", "tools": [TOOL]}, final="finalResponse")
        [call] = [item for item in first["output"] if item["type"] == "function_call"]
        assert call["arguments"] == '{"city": "Oslo"}'
        output = [{"type": "function_call_output", "call_id": call["call_id"], "output": "Rain"}]
        asked = {"input": output, "previous_response_id": first["id"]}
        second = await npm("responses.stream", asked, final="finalResponse")
        assert [item["type"] for item in second["output"]] == ["mcp_call", "message"]
        assert second["output_text"] == "Reported."
        told = (await upstream.request(1)).body["messages"]
        assert told[-1] == {"role": "tool", "tool_call_id": "call_1", "content": "Rain"}


@pytest.mark.client("OpenAI npm, responses", "errors")
async def test_response_that_fails_says_so(serve: Serve) -> None:
    async with calls(serve, refusal(401)) as (npm, _, _):
        with pytest.raises(NpmError) as failed:
            await npm("responses.create", {"input": "Hi"})
        assert (failed.value.error["status"], failed.value.error["code"]) == (502, "upstream_auth")
        events = await npm("responses.create", {"input": "Hi", "stream": True})
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["type"] == "upstream_auth"
        with pytest.raises(NpmError) as refused:
            await npm("responses.create", {"input": "Hi", "store": False})
        assert refused.value.error["status"] == 400


async def test_service_that_stops_raises(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.1", DRAIN_SECONDS="0")
    async with npm_client(service) as npm:
        waiting = asyncio.create_task(npm("responses.create", {"input": WORDS, "stream": True}))
        async with asyncio.timeout(20):
            while not service.rows("SELECT 1 FROM journal"):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.02)
        await service.terminate()
        with pytest.raises(NpmError) as leaving:
            await waiting
        assert leaving.value.error["code"] == "draining"
        await service.start()
        events = leaving.value.events
        after = {"stream": True, "starting_after": events[-1]["sequence_number"]}
        events += await npm("responses.retrieve", events[0]["response"]["id"], after)
        assert text_of(events) == WORDS
