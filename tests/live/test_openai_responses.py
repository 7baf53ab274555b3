"""OpenAI's Python client, unmodified: responses in the background or not, cut, resumed, stopped and continued."""

import asyncio
import signal
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseStreamEvent

from tests.live.conftest import Serve
from tests.live.openai_clients import TOOL, asked, events_of, id_of, python_client, rest_of, talking, text_of, user
from tests.live.service import Service
from tests.upstream import chunk, completion, done, finish, refusal, reply, sse, thought

WORDS = "One two three four five six seven eight."


def same(events: list[Any]) -> list[Any]:
    return [event.to_dict() for event in events]


# --- asking


@pytest.mark.client("OpenAI Python, responses", "send", "stream")
async def test_response_is_streamed_and_whole(serve: Serve) -> None:
    thinking = thought("Hm.")
    usage = sse({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
    answer = reply(thinking, chunk("Hello "), chunk("there"), finish(), usage, done())
    async with talking(serve, answer) as (client, service, upstream):
        async with client.responses.stream(
            model="scripted",
            instructions="Be kind",
            input="Hi",
            temperature=0.5,
            max_output_tokens=9,
            metadata={"a": "b"},
        ) as stream:
            snapshots = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
            whole = await stream.get_final_response()
        assert snapshots == ["Hello ", "Hello there"]
        assert (whole.output_text, whole.status, whole.model) == ("Hello there", "completed", "scripted")
        assert [item.type for item in whole.output] == ["reasoning", "message"]
        assert whole.usage is not None
        assert (whole.usage.input_tokens, whole.usage.total_tokens) == (7, 9)
        body = (await upstream.request(0)).body
        assert body["messages"] == [{"role": "system", "content": "Be kind"}, user("Hi")]
        assert (body["temperature"], body["max_completion_tokens"]) == (0.5, 9)

        kept = await client.responses.retrieve(whole.id)
        assert kept.completed_at is not None
        end = (await rest_of(client, whole.id, 0))[-1]
        assert end.type == "response.completed"
        assert kept.to_dict() | {"completed_at": None} == end.response.to_dict()
        assert (kept.instructions, kept.temperature, kept.metadata) == ("Be kind", 0.5, {"a": "b"})
        assert (await asked(client, "Hi")).output_text == "Hello there"
        run = (await service.client.get(f"/runs/run_{whole.id.removeprefix('resp_')}")).json()
        assert (run["status"], await service.answer(run["run_id"])) == ("completed", "Hello there")


async def test_any_run_is_a_response(service: Service) -> None:
    run_id = await service.begin("Hello there")
    await service.ended(run_id)
    async with python_client(service) as client:
        response = await client.responses.retrieve(f"resp_{run_id.removeprefix('run_')}")
        assert (response.output_text, response.previous_response_id) == ("Hello there", None)
        for unknown in (run_id, "resp_none"):
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(unknown)
            with pytest.raises(openai.NotFoundError):
                await client.responses.cancel(unknown)
        with pytest.raises(openai.APIStatusError) as refused:
            await client.responses.delete(response.id)
        assert refused.value.status_code == 405


# --- cut and resumed


@pytest.mark.client("OpenAI Python, responses", "resume")
async def test_response_that_is_cut_behind_any_event_goes_on_there(service: Service) -> None:
    async with python_client(service) as client:
        whole = await events_of(client, WORDS)
        assert text_of(whole) == WORDS
        for number in range(len(whole)):
            rest = await rest_of(client, id_of(whole), number)
            assert same(whole[: number + 1] + rest) == same(whole)
        assert len(service.rows("SELECT id FROM runs")) == 1


@pytest.mark.client("OpenAI Python, responses", "stream", "resume")
async def test_response_that_is_cut_while_it_is_written_goes_on_there(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.05")
    async with python_client(service) as client:

        async def cut(at: int) -> list[ResponseStreamEvent]:
            """Cut behind so many events, and behind two of what follows, up to the end."""
            events = await events_of(client, WORDS, at, background=True)
            while events[-1].type != "response.completed":
                events += await rest_of(client, id_of(events), events[-1].sequence_number, 2)
            return events

        every = await asyncio.gather(*[cut(at) for at in range(1, 17)])
    for events in every:
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert text_of(events) == WORDS
        assert [event.type for event in events].count("response.completed") == 1


@pytest.mark.client("OpenAI Python, responses", "resume")
async def test_killed_service_only_interrupts(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.1", LEASE_SECONDS="1")
    async with python_client(service) as client:
        events = await events_of(client, WORDS, 6, background=True)
        await service.restart()
        polled = await client.responses.retrieve(id_of(events))
        assert polled.output_text.startswith(text_of(events))
        events += await rest_of(client, id_of(events), events[-1].sequence_number)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (text_of(events), events[-1].type) == (WORDS, "response.completed")
        assert (await client.responses.retrieve(id_of(events))).output_text == WORDS
        assert service.rows("SELECT max(epoch), count(*) FROM runs") == [(2, 1)]


async def test_other_workers_know_the_response_as_well(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.1", WORKERS="2")
    async with python_client(service) as client:
        events = await events_of(client, WORDS, 5, background=True)

    async def seen_by_another_connection() -> list[ResponseStreamEvent]:
        async with python_client(service) as client:
            polled = await client.responses.retrieve(id_of(events))
            assert polled.output_text.startswith(text_of(events))
            return await rest_of(client, polled.id, events[-1].sequence_number)

    for rest in await asyncio.gather(*[seen_by_another_connection() for _ in range(8)]):
        assert [event.sequence_number for event in [*events, *rest]] == list(range(len(events) + len(rest)))
        assert text_of([*events, *rest]) == WORDS


async def test_service_that_stops_says_where_to_go_on(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.1", DRAIN_SECONDS="0")
    async with python_client(service) as client:
        stream = await client.responses.create(model="echo", input=WORDS, stream=True, background=True)
        events: list[Any] = []
        async for event in stream:
            events.append(event)
            if text_of(events) and service.process is not None and len(events) == 5:
                service.send_signal(signal.SIGTERM)
        leaving = events.pop()
        assert (leaving.type, leaving.code) == ("error", "draining")
        assert leaving.sequence_number == events[-1].sequence_number
        await service.exit()
        await service.start()
        events += await rest_of(client, id_of(events), leaving.sequence_number)
        assert text_of(events) == WORDS


async def test_client_that_has_everything_is_told_nothing_more(service: Service) -> None:
    async with python_client(service) as client:
        whole = await events_of(client, "Hi")
        number = whole[-1].sequence_number
        assert await rest_of(client, id_of(whole), number) == []
        with pytest.raises(openai.ConflictError) as ahead:
            await rest_of(client, id_of(whole), number + 1)
        assert (ahead.value.code, ahead.value.response.headers["x-should-retry"]) == ("cursor_ahead", "false")


async def test_event_ids_lead_on_as_everywhere(service: Service) -> None:
    body = {"input": "One two three", "stream": True}
    whole = (await service.client.post("/v1/responses", json=body)).text.split("\n\n")
    ids = [(place, record.partition("\n")[0][4:]) for place, record in enumerate(whole) if record.startswith("id: ")]
    run_id = ids[0][1].partition(".")[0]
    path = f"/v1/responses/resp_{run_id.removeprefix('run_')}?stream=true"
    assert len(ids) == 5
    for place, event_id in ids[1:]:
        headers = {"Last-Event-ID": event_id}
        for rest in (
            await service.client.get(path, headers=headers),
            await service.client.post("/v1/responses", json=body, headers=headers),
        ):
            if place == ids[-1][0]:
                assert (rest.status_code, rest.text) == (204, "")
            else:
                assert rest.text.split("\n\n")[1:] == whole[place + 1 :]
    other = await service.client.get(path, headers={"Last-Event-ID": "run_x.1"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "cursor_mismatch")


# --- in the background


async def test_background_response_is_polled_until_it_is_there(serve: Serve) -> None:
    gate = asyncio.Event()
    async with talking(serve, reply(chunk("Half "), gate, chunk("whole"), finish(), done())) as (client, _, upstream):
        started = await asked(client, "Hi", background=True)
        assert (started.status, started.background, started.output) == ("in_progress", True, [])
        await upstream.request(0)
        half = await rest_of(client, started.id, 0, 4)
        assert text_of(half) == "Half "
        polled = await client.responses.retrieve(started.id)
        assert (polled.status, polled.output_text, polled.usage) == ("in_progress", "Half ", None)
        behind = await asked(
            client, "Next", background=True, previous_response_id=started.id, extra_body={"on_busy": "queue"}
        )
        assert behind.status == "queued"
        gate.set()
        await rest_of(client, started.id, half[-1].sequence_number)
        polled = await client.responses.retrieve(started.id)
        assert (polled.status, polled.output_text) == ("completed", "Half whole")
        assert text_of(await rest_of(client, behind.id, 0)) == "Half whole"


@pytest.mark.client("OpenAI Python, responses", "stop")
async def test_response_is_stopped(serve: Serve) -> None:
    async with talking(serve, reply(chunk("Half "), asyncio.Event())) as (client, service, upstream):
        events = await events_of(client, "Hi", 5, background=True)
        following = asyncio.create_task(rest_of(client, id_of(events), 4))
        stopped = await client.responses.cancel(id_of(events))
        assert (stopped.status, stopped.output_text, stopped.error) == ("cancelled", "Half ", None)
        [end] = await following
        assert end.type == "response.failed"
        assert end.response.status == "cancelled"
        assert (await client.responses.cancel(stopped.id)).to_dict() == stopped.to_dict()
        assert await service.answer(f"run_{stopped.id.removeprefix('resp_')}") == "Half "
        waiting = asyncio.create_task(asked(client, "Hi"))
        await upstream.request(1)
        [(run_id,)] = service.rows("SELECT id FROM runs WHERE status = 'running'")
        await service.client.post(f"/runs/{run_id}/cancel")
        assert (await waiting).status == "cancelled"


# --- failing


@pytest.mark.client("OpenAI Python, responses", "errors")
async def test_failures_raise_before_the_stream_and_are_told_within(serve: Serve) -> None:
    gate = asyncio.Event()
    broken = reply(chunk("Half "), gate, sse({"error": {"message": "secret", "code": 500}}))
    replies = refusal(401), refusal(400), broken, completion("Cut", reason="length")
    async with talking(serve, *replies) as (client, _, _):
        with pytest.raises(openai.InternalServerError) as failed:
            await asked(client, "Hi")
        assert (failed.value.status_code, failed.value.code) == (502, "upstream_auth")
        refused = (await events_of(client, "Hi"))[-1]
        assert refused.type == "response.failed"
        assert refused.response.error is not None
        assert (refused.response.error.code, refused.response.error.type) == ("server_error", "upstream_rejected")

        started = await asked(client, "Hi", background=True)
        gate.set()
        events = await rest_of(client, started.id, 0)
        assert (text_of(events), events[-1].type) == ("Half ", "response.failed")
        kept = await client.responses.retrieve(started.id)
        assert (kept.status, kept.output_text) == ("failed", "Half ")
        assert kept.error is not None
        assert "secret" not in kept.error.message

        cut = await asked(client, "Hi")
        assert cut.incomplete_details is not None
        assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


# --- refusing


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.items.0.message.content"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.items.0"),
        ({"input": [3]}, "input.items.0"),
        ({"input": "Hi", "store": False}, "store"),
        ({"input": "Hi", "prompt": {"id": "x"}}, "prompt"),
        ({"input": "Hi", "tools": [{"type": "web_search"}]}, "tools.0"),
        ({"input": "Hi", "tools": [TOOL, TOOL]}, "tools"),
        ({"input": "Hi", "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"input": "Hi", "conversation": "a/b"}, "conversation"),
        ({"input": "Hi", "temperature": "hot"}, "temperature"),
        ({"input": "Hi", "metadata": {"a": 1}}, "metadata.a"),
        ({"input": "Hi", "model": "gpt-4o"}, "This service does not offer"),
        ({"input": "x" * 200}, "A message may have"),
    ],
)
async def test_wrong_requests_are_told_as_openai_does(service_with_limits: Service, body: Any, field: str) -> None:
    response = await service_with_limits.client.post("/v1/responses", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith(field)
    assert service_with_limits.rows("SELECT id FROM runs") == []


@pytest.fixture
async def service_with_limits(serve: Serve) -> Service:
    return await serve(MAX_MESSAGE_CHARS="100")
