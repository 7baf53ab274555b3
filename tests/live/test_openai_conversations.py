"""OpenAI's Python client, unmodified: responses that continue others, and their tools."""

import asyncio
from typing import Any

import openai
import pytest

from tests.live.conftest import Serve
from tests.live.openai_clients import LOOK, TOOL, asked, calling_ours, events_of, looking, talking, text_of, user
from tests.upstream import chunk, completion, reply

HEADER = {"X-Session-Id": "shared"}


# --- conversations


async def test_response_continues_another_and_branches(serve: Serve) -> None:
    async with talking(serve, *[completion(f"Answer {number}") for number in range(4)]) as (client, service, upstream):
        first = await asked(client, "One", user="ann")
        second = await asked(client, "Two", previous_response_id=first.id)
        third = await asked(client, "Three", previous_response_id=second.id, instructions="Be kind")
        branch = await asked(client, "Other", previous_response_id=first.id)
        assert (third.previous_response_id, branch.previous_response_id) == (second.id, first.id)
        history = [user("One"), {"role": "assistant", "content": "Answer 0"}]
        assert (await upstream.request(1)).body["messages"] == [*history, user("Two")]
        assert (await upstream.request(2)).body["messages"][0] == {"role": "system", "content": "Be kind"}
        assert (await upstream.request(3)).body["messages"] == [*history, user("Other")]
        sessions = {response.conversation and response.conversation.id for response in (first, second, third, branch)}
        assert len(sessions) == 1
        assert (await service.client.get(f"/sessions/{sessions.pop()}")).json()["user_id"] == "ann"
        with pytest.raises(openai.NotFoundError):
            await asked(client, "Hi", previous_response_id="resp_none")


async def test_conversation_is_a_session_in_which_the_input_is_new(serve: Serve) -> None:
    async with talking(serve, *[completion(f"Answer {number}") for number in range(5)]) as (client, _, upstream):
        await asked(client, "One", conversation="shared")
        await asked(client, [user("Two"), user("Three")], conversation={"id": "shared"})
        history = [user("One"), {"role": "assistant", "content": "Answer 0"}, user("Two"), user("Three")]
        assert (await upstream.request(1)).body["messages"] == history
        await asked(client, "Four", extra_headers=HEADER)
        history += [{"role": "assistant", "content": "Answer 1"}, user("Four")]
        assert (await upstream.request(2)).body["messages"] == history
        # The whole of it, and not the same once more.
        history += [{"role": "assistant", "content": "Answer 2"}, user("Five")]
        whole = await asked(client, history, extra_headers=HEADER)
        assert (await upstream.request(3)).body["messages"] == history
        assert whole.conversation is not None
        assert whole.conversation.id == "shared"
        await asked(client, history)  # alone, the whole is a session of its own
        assert (await upstream.request(4)).body["messages"] == history


async def test_session_that_is_answering_is_busy(serve: Serve) -> None:
    async with talking(serve, reply(chunk("Half "), asyncio.Event())) as (client, _, upstream):
        first = await asked(client, "One", background=True)
        await upstream.request(0)
        with pytest.raises(openai.ConflictError) as busy:
            await asked(client, "Two", previous_response_id=first.id)
        assert busy.value.code == "run_in_progress"


async def test_same_key_is_the_same_response(serve: Serve) -> None:
    async with talking(serve, completion("Once"), completion("Twice")) as (client, _, upstream):
        key = {"Idempotency-Key": "key"}
        first = await asked(client, "Hi", extra_headers=key)
        assert (await asked(client, "Hi", extra_headers=key)).to_dict() == first.to_dict()
        assert text_of(await events_of(client, "Hi", extra_headers=key)) == "Once"
        assert len(upstream.requests) == 1


# --- tools


@pytest.mark.client("OpenAI Python, responses", "tools")
@pytest.mark.parametrize("by", ["response", "conversation", "input"])
async def test_client_runs_its_own_tools(serve: Serve, by: str) -> None:
    replies = looking("call_1", "Oslo"), completion("It rains."), completion("Bye.")
    async with talking(serve, *replies, MAX_MESSAGE_CHARS="8") as (client, service, upstream):
        header = HEADER if by == "conversation" else None
        events = await events_of(client, "Weather?", tools=[TOOL], extra_headers=header)
        end = events[-1]
        assert end.type == "response.completed"
        said, call = end.response.output
        assert (said.type, call.type) == ("message", "function_call")
        assert call.type == "function_call"
        assert (call.call_id, call.name, call.arguments) == ("call_1", "look", '{"city": "Oslo"}')
        written = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        assert written == ['{"city":', ' "Oslo"}']

        result = {"type": "function_call_output", "call_id": "call_1", "output": "Rain"}
        named: dict[str, Any] = {
            "response": {"previous_response_id": end.response.id},
            "conversation": {"conversation": "shared"},
            "input": {},
        }[by]
        given = [user("Weather?"), *end.response.output, result] if by == "input" else [result]
        answer = await asked(client, given, tools=[TOOL], **named)
        assert answer.output_text == "It rains."
        body = (await upstream.request(1)).body
        called = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"city": "Oslo"}'}}
        assert body["messages"] == [
            user("Weather?"),
            {"role": "assistant", "content": "I look. ", "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
        ]
        assert body["tools"] == [{"type": "function", "function": {**LOOK["function"], "strict": True}}]  # type: ignore[dict-item]
        await asked(client, "Bye", previous_response_id=answer.id)
        assert (await upstream.request(2)).body["messages"][3:] == [
            {"role": "assistant", "content": "It rains."},
            user("Bye"),
        ]
        session = answer.conversation and answer.conversation.id
        messages = (await service.client.get(f"/sessions/{session}/messages")).json()["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant", "assistant", "user", "assistant"]
        assert messages[1]["tool_calls"][0]["result"] == "Rain"


async def test_other_results_are_another_branch(serve: Serve) -> None:
    replies = looking("call_1", "Oslo"), completion("It rains."), completion("It shines.")
    async with talking(serve, *replies) as (client, _, upstream):
        first = await asked(client, "Weather?", tools=[TOOL])
        for number, (result, answer) in enumerate([("Rain", "It rains."), ("Sun", "It shines.")], 1):
            output: Any = [{"type": "function_call_output", "call_id": "call_1", "output": result}]
            response = await asked(client, output, previous_response_id=first.id, tools=[TOOL])
            assert response.output_text == answer
            told = (await upstream.request(number)).body["messages"]
            assert told[2:] == [{"role": "tool", "tool_call_id": "call_1", "content": result}]


async def test_calls_are_answered_first_and_by_their_own_results(serve: Serve) -> None:
    async with talking(serve, looking("call_1", "Oslo")) as (client, _, _):
        first = await asked(client, "Weather?", tools=[TOOL], conversation="shared")
        other: Any = [{"type": "function_call_output", "call_id": "call_2", "output": "Rain"}]
        for said, more, wrong in (
            ("Never mind", {"previous_response_id": first.id}, "every function_call"),
            (other, {"previous_response_id": first.id}, "has to follow"),
            (other, {"conversation": "shared"}, "has to follow"),
            (other, {}, "has to follow"),
            ("Hi", {"previous_response_id": first.id, "conversation": "shared"}, "name no other"),
            ("Hi", {"previous_response_id": first.id, "extra_headers": {"X-Session-Id": "x"}}, "name no other"),
            ("Hi", {"conversation": "shared", "extra_headers": {"X-Session-Id": "x"}}, "names another session"),
        ):
            with pytest.raises(openai.BadRequestError, match=wrong):
                await asked(client, said, **more)


@pytest.mark.client("OpenAI Python, responses", "tools")
async def test_calls_of_the_services_tools_are_told_as_made(serve: Serve) -> None:
    replies = calling_ours(), completion("Reported."), completion("You are welcome.")
    async with talking(serve, *replies, TOOLS="examples.town_hall") as (client, service, upstream):
        events = await events_of(client, "A pothole", tools=[TOOL])
        end = events[-1]
        assert end.type == "response.completed"
        made, said = end.response.output
        assert made.type == "mcp_call"
        assert (made.name, made.status, made.error) == ("submit_feedback", "completed", None)
        assert said.type == "message"
        assert (await service.client.get("/records?kind=feedback")).json()["records"]
        await asked(client, [user("A pothole"), *end.response.output, user("Thanks")])
        _, *told = (await upstream.request(2)).body["messages"]
        assert [message["role"] for message in told] == ["user", "assistant", "tool", "assistant", "user"]
        assert told[2]["content"] == made.output
        with pytest.raises(openai.BadRequestError, match="this service's tools"):
            await asked(client, "Hi", tools=[{**TOOL, "name": "submit_feedback"}])
