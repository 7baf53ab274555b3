"""The official client of OpenAI's API, unmodified, as a client of ours."""

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from tests.live.conftest import Serve
from tests.live.openai_clients import LOOK, calling_ours, looking, talking, user
from tests.live.service import PATIENCE, ROOT, Service
from tests.upstream import chunk, completion, refusal, reply, sse

DEEP = json.loads('{"a":' * 100 + "1" + "}" * 100)
"""No deeper than a body may be, and deeper than a schema."""

Hook: TypeAlias = Callable[[ChatCompletionChunk], Awaitable[object]]


async def streamed(
    client: AsyncOpenAI,
    text: str,
    on_text: Hook | None = None,
    **more: Any,
) -> str:
    """The text of a streamed answer; raises what the client raises, and ``said`` is on it."""
    said = ""
    try:
        async for chunk in await client.chat.completions.create(
            model="scripted", messages=[user(text)], stream=True, **more
        ):
            said += chunk.choices[0].delta.content or ""
            if said and on_text is not None:
                await on_text(chunk)
    except openai.APIError as error:
        error.add_note(said)
        raise
    return said


@pytest.mark.client("OpenAI Python, chat completions", "send", "stream")
async def test_answer_is_streamed_with_usage_and_whole(serve: Serve) -> None:
    async with talking(serve, completion("Hello ", "there", reason="length")) as (client, service, upstream):
        stream = await client.chat.completions.create(
            model="scripted",
            messages=[{"role": "system", "content": "Be kind"}, user("Hi")],
            stream=True,
            stream_options={"include_usage": True},
            temperature=0.5,
            max_tokens=9,
            stop=["x"],
        )
        chunks = [chunk async for chunk in stream]
        said = [chunk.choices[0] for chunk in chunks if chunk.choices]
        assert [choice.delta.content for choice in said] == ["", "Hello ", "there", None]
        assert (said[0].delta.role, said[-1].finish_reason) == ("assistant", "length")
        assert chunks[-1].usage is not None
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (7, 2)
        asked = (await upstream.request(0)).body
        assert asked["messages"] == [{"role": "system", "content": "Be kind"}, user("Hi")]
        assert {name: asked[name] for name in ("temperature", "max_tokens", "stop")} == {
            "temperature": 0.5, "max_tokens": 9, "stop": ["x"],
        }  # fmt: skip

        whole = await client.chat.completions.create(model="scripted", messages=[user("Hi")])
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("Hello there", "length")
        assert whole.usage is not None
        assert whole.usage.total_tokens == 9
        run = (await service.client.get(f"/runs/{whole.id.removeprefix('chatcmpl-')}")).json()
        assert (run["status"], await service.answer(run["run_id"])) == ("completed", "Hello there")
        assert "temperature" not in (await upstream.request(1)).body


async def test_models_are_listed_and_others_refused(serve: Serve) -> None:
    async with talking(serve, completion("Hi"), ALLOWED_MODELS="ollama/llama") as (client, _, _):
        assert [model.id async for model in client.models.list()] == ["scripted", "ollama/llama"]
        assert (await client.models.retrieve("ollama/llama")).owned_by == "ollama"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gpt-4o")
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="gpt-4o", messages=[user("Hi")])
        assert refused.value.code == "model_not_allowed"
        assert refused.value.request_id


async def test_session_is_continued_by_one_message_or_by_all_of_them(serve: Serve) -> None:
    replies = completion("One"), completion("Two"), completion("Three"), completion("Four")
    async with talking(serve, *replies) as (client, service, upstream):
        header = {"X-Session-Id": "shared"}
        await client.chat.completions.create(model="scripted", messages=[user("First")], extra_headers=header)
        metadata = {"session_id": "shared"}
        await client.chat.completions.create(model="scripted", messages=[user("Second")], metadata=metadata)
        history = [user("First"), {"role": "assistant", "content": "One"}, user("Second")]
        history += [{"role": "assistant", "content": "Two"}, user("Third")]
        await client.chat.completions.create(model="scripted", messages=history, extra_headers=header)
        assert (await upstream.request(2)).body["messages"] == history
        assert (await upstream.request(1)).body["messages"] == history[:3]
        messages = (await service.client.get("/sessions/shared/messages")).json()["messages"]
        assert [message["content"] for message in messages] == ["First", "One", "Second", "Two", "Third", "Three"]

        await client.chat.completions.create(model="scripted", messages=[user("Alone")])
        assert (await upstream.request(3)).body["messages"] == [user("Alone")]


@pytest.mark.client("OpenAI Python, chat completions", "tools")
@pytest.mark.parametrize("session", [{}, {"X-Session-Id": "shared"}], ids=["stateless", "in a session"])
async def test_client_runs_its_own_tools(serve: Serve, session: dict[str, str]) -> None:
    async with talking(serve, looking("call_1", "Oslo"), completion("It rains.")) as (client, service, upstream):
        tools: Any = [LOOK]
        stream = await client.chat.completions.create(
            model="scripted", messages=[user("Weather?")], tools=tools, stream=True, extra_headers=session
        )
        chunks = [chunk.choices[0] async for chunk in stream]
        assert chunks[-1].finish_reason == "tool_calls"
        deltas = [call for choice in chunks for call in choice.delta.tool_calls or ()]
        assert (deltas[0].id, deltas[0].function and deltas[0].function.name) == ("call_1", "look")
        written = "".join([delta.function.arguments or "" for delta in deltas if delta.function])
        assert json.loads(written) == {"city": "Oslo"}
        assert "".join([choice.delta.content or "" for choice in chunks]) == "I look. "

        called = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": written}}
        history: list[Any] = [
            user("Weather?"),
            {"role": "assistant", "content": "I look. ", "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
        ]
        answer = await client.chat.completions.with_raw_response.create(
            model="scripted", messages=history, tools=tools, extra_headers=session
        )
        assert answer.parse().choices[0].message.content == "It rains."
        asked = (await upstream.request(1)).body
        assert asked["messages"] == history
        assert asked["tools"] == tools
        session_id = answer.headers["x-session-id"]
        messages = (await service.client.get(f"/sessions/{session_id}/messages")).json()["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant", "assistant"]
        [call] = messages[1]["tool_calls"]
        assert (call["name"], call["result"]) == ("look", "Rain")


async def test_call_that_is_waited_for_comes_whole(serve: Serve) -> None:
    async with talking(serve, looking("call_1", "Oslo")) as (client, _, _):
        tools: Any = [LOOK]
        answer = await client.chat.completions.create(model="scripted", messages=[user("Weather?")], tools=tools)
        [choice] = answer.choices
        assert choice.finish_reason == "tool_calls"
        assert [call.id for call in choice.message.tool_calls or ()] == ["call_1"]


async def test_service_runs_its_own_tools_without_a_word_to_the_client(serve: Serve) -> None:
    replies = calling_ours(), completion("Reported.")
    async with talking(serve, *replies, TOOLS="examples.town_hall") as (client, service, _):
        tools: Any = [LOOK]
        stream = await client.chat.completions.create(
            model="scripted", messages=[user("A pothole")], tools=tools, stream=True
        )
        chunks = [chunk.choices[0] async for chunk in stream]
        assert not any(choice.delta.tool_calls for choice in chunks)
        assert (chunks[-2].delta.content, chunks[-1].finish_reason) == ("Reported.", "stop")
        assert (await service.client.get("/records?kind=feedback")).json()["records"]
        taken: Any = [{"type": "function", "function": {"name": "submit_feedback", "parameters": {}}}]
        with pytest.raises(openai.BadRequestError, match="this service's tools"):
            await client.chat.completions.create(model="scripted", messages=[user("Hi")], tools=taken)


@pytest.mark.client("OpenAI Python, chat completions", "stream", "errors")
async def test_failures_raise_before_and_within_the_stream(serve: Serve) -> None:
    gate = asyncio.Event()
    broken = reply(chunk("Half "), gate, sse({"error": {"message": "secret", "code": 500}}))
    async with talking(serve, refusal(401), refusal(400), broken) as (client, _, _):
        with pytest.raises(openai.InternalServerError) as failed:
            await client.chat.completions.create(model="scripted", messages=[user("Hi")])
        assert (failed.value.status_code, failed.value.code) == (502, "upstream_auth")
        assert failed.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.APIError) as failed_within:
            await streamed(client, "Hi")
        assert failed_within.value.code == "upstream_rejected"

        async def open_gate(_: ChatCompletionChunk) -> None:
            gate.set()

        with pytest.raises(openai.APIError) as broke:
            await streamed(client, "Hi", open_gate)
        assert (broke.value.__notes__, broke.value.code) == (["Half "], "upstream_error")
        assert "secret" not in broke.value.message


@pytest.mark.client("OpenAI Python, chat completions", "stream", "stop")
async def test_stop_from_elsewhere_is_no_whole_answer(serve: Serve) -> None:
    async with talking(serve, reply(chunk("Half "), asyncio.Event())) as (client, service, _):
        stopped: list[str] = []

        async def stop(chunk: ChatCompletionChunk) -> None:
            stopped.append(chunk.id.removeprefix("chatcmpl-"))
            await service.client.post(f"/runs/{stopped[0]}/cancel")

        with pytest.raises(openai.APIError) as raised:
            await streamed(client, "Hi", stop)
        assert raised.value.code == "run_cancelled"
        assert await service.answer(stopped[0]) == "Half "


async def test_same_key_streams_the_same_answer_again(serve: Serve) -> None:
    async with talking(serve, completion("Once"), completion("Twice")) as (client, _, upstream):
        key = {"Idempotency-Key": "key"}
        assert [await streamed(client, "Hi", extra_headers=key) for _ in range(2)] == ["Once", "Once"]
        assert len(upstream.requests) == 1


async def test_stream_goes_on_behind_any_event_id(service: Service) -> None:
    body = {"messages": [user("One two three four")], "stream": True}
    whole = (await service.client.post("/v1/chat/completions", json=body)).text.split("\n\n")
    cursors = [(place, record.partition("\n")[0]) for place, record in enumerate(whole) if record.startswith("id: ")]
    assert len(cursors) == 6
    for place, line in cursors[1:]:
        headers = {"Last-Event-ID": line.removeprefix("id: ")}
        rest = await service.client.post("/v1/chat/completions", json=body, headers=headers)
        if place == cursors[-1][0]:
            assert (rest.status_code, rest.text) == (204, "")
        else:
            assert rest.text.split("\n\n")[1:] == whole[place + 1 :]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [user("Hi")], "n": 2}, "n"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
        ({"messages": [user("Hi")], "tools": [LOOK, LOOK]}, "tools"),
        ({"messages": [user("Hi")], "tools": [{"function": {"name": "a", "parameters": DEEP}}]}, "tools: a schema"),
        ({"messages": [user("Hi")], "metadata": {"session_id": "a/b"}}, "metadata.session_id"),
        ({"messages": [user("x" * 200)]}, "A message may have"),
    ],
)
async def test_wrong_requests_are_told_as_openai_does(serve: Serve, body: dict[str, Any], field: str) -> None:
    service = await serve(MAX_MESSAGE_CHARS="100", MAX_BODY_BYTES="10000")
    response = await service.client.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_request")
    assert error["message"].startswith(field)
    huge = await service.client.post("/v1/chat/completions", json={"messages": [user("x" * 20_000)]})
    assert (huge.status_code, huge.json()["error"]["code"]) == (413, "body_too_large")
    header = await service.client.post(
        "/v1/chat/completions", json={"messages": [user("Hi")]}, headers={"X-Session-Id": "a/b"}
    )
    assert header.json()["error"]["code"] == "invalid_request"
    assert (await service.client.get("/v1/nothing")).json()["error"]["code"] == "not_found"


async def test_lines_of_the_page_on_clients_work(service: Service) -> None:
    page = (ROOT / "docs/clients.md").read_text()
    blocks = re.findall(r"^```python\n((?:from openai|stream = client).*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("http://localhost:8000", service.url)
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", lines, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE * 2):
        said, _ = await running.communicate()
    assert said.decode() == "Hello from OpenAIHello again"
    messages = (await service.client.get("/sessions/demo/messages")).json()["messages"]
    assert [message["content"] for message in messages] == ["Hello from OpenAI"] * 2 + ["Hello again"] * 2
