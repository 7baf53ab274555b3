"""What the model's server says an answer is from, as every client sees it."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.live.ai_sdk import VERSIONS, talking
from tests.live.chatkit import Chat
from tests.live.conftest import Serve
from tests.live.openai_clients import events_of, npm_client, python_client, rest_of, user
from tests.live.service import PATIENCE, Service, read_all
from tests.live.test_ag_ui import clients, converse, node, texts
from tests.live.wire import Proxy
from tests.upstream import Upstream, chunk, done, finish, reply, sse

__all__ = ["node"]

RAIN: dict[str, Any] = {"url": "https://a.example/rain", "title": "Rain", "start_index": 3, "end_index": 8}
BARE = "https://b.example/"

SEARCHED = reply(
    sse({"citations": [BARE, "javascript:alert(1)"], "choices": [{"index": 0, "delta": {"content": "It "}}]}),
    chunk("rains", annotations=[{"type": "url_citation", "url_citation": RAIN}]),
    chunk(".", annotations=[{"type": "url_citation", "url_citation": {"url": "data:,x"}}]),
    finish(),
    done(),
)
"""An address of which no place is known, one of a place in the text, and two that lead to no page."""

STORED = [
    {"id": "source_1", "url": BARE},
    {"id": "source_2", "url": RAIN["url"], "title": "Rain", "start": 3, "end": 8},
]

CITED = [
    {"type": "url_citation", "url": BARE, "title": BARE, "start_index": 0, "end_index": 0},
    {"type": "url_citation", **RAIN},
]
"""As OpenAI's responses have them."""


@pytest.fixture
async def searching(serve: Serve) -> Any:
    async with Upstream(SEARCHED) as upstream:
        yield await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")


def nested(annotations: list[Any]) -> list[Any]:
    """As chat completions have them, but for the places that a stream gives them."""
    return [{"type": "url_citation", "url_citation": {k: one[k] for k in one if k != "type"}} for one in annotations]


def without_index(annotations: list[Any]) -> list[Any]:
    return [{name: one[name] for name in ("type", "url_citation")} for one in annotations]


async def test_sources_are_events_and_kept_with_the_message(searching: Service) -> None:
    client = searching.client
    asked = {"message": "Hi", "session_id": "one", "format": "events"}
    async with client.stream("POST", "/chat", json=asked) as response:
        frames = await read_all(response)
    found = [json.loads(frame.data or "") for frame in frames if frame.event == "source"]
    assert found == STORED
    [_, answer] = (await client.get("/sessions/one/messages")).json()["messages"]
    assert (answer["content"], answer["sources"]) == ("It rains.", STORED)
    whole = (await client.post("/chat", json={"message": "Hi", "stream": False})).json()
    assert (whole["answer"], whole["sources"]) == ("It rains.", STORED)
    answered = (await client.post("/query", json={"prompt": "Hi"})).json()
    assert (answered["answer"], answered["sources"]) == ("It rains.", STORED)
    plain = await client.post("/chat", json={"message": "Hi"})
    assert "example" not in plain.text, "plain text is the answer and nothing else"


async def test_stream_of_events_goes_on_behind_any_source(searching: Service) -> None:
    run_id = (await searching.client.post("/chat", json={"message": "Hi", "stream": False})).json()["run_id"]
    whole = await searching.follow(run_id, format="events")
    assert [frame.event for frame in whole].count("source") == 2
    for frame in whole[:-1]:
        _, *rest = await searching.follow(run_id, frame.seq, format="events")
        assert rest == whole[frame.seq + 1 :]


@pytest.mark.client("OpenAI Python, chat completions", "stream")
async def test_openais_completions_have_annotations(searching: Service) -> None:
    async with python_client(searching) as client:
        whole = await client.chat.completions.create(model="scripted", messages=[user("Hi")])
        annotations = whole.choices[0].message.annotations or []
        assert [one.to_dict() for one in annotations] == nested(CITED)
        async with client.chat.completions.stream(model="scripted", messages=[user("Hi")]) as stream:
            final = await stream.get_final_completion()  # puts lists together by an index, or raises
        message = final.choices[0].message
        assert message.content == "It rains."
        assert without_index([one.to_dict() for one in message.annotations or []]) == nested(CITED)


@pytest.mark.client("OpenAI npm, chat completions", "stream")
async def test_npms_completions_have_annotations(searching: Service) -> None:
    async with npm_client(searching) as npm:
        asked = {"model": "scripted", "messages": [user("Hi")]}
        message = await npm("chat.completions.stream", {**asked, "stream": True}, final="finalMessage")
        assert (message["content"], without_index(message["annotations"])) == ("It rains.", nested(CITED))
        whole = await npm("chat.completions.create", asked)
        assert whole["choices"][0]["message"]["annotations"] == nested(CITED)


def cited_in(output: Any) -> list[Any]:
    """The annotations of a response's one message."""
    [item] = output
    [part] = item.content
    assert part.text == "It rains."
    return [annotation.to_dict() for annotation in part.annotations]


@pytest.mark.client("OpenAI Python, responses", "stream", "resume")
async def test_response_has_annotations_wherever_it_is_cut(searching: Service) -> None:
    async with python_client(searching) as client:
        whole = await events_of(client, "Hi")
        added = [event for event in whole if event.type == "response.output_text.annotation.added"]
        assert [event.annotation.to_dict() for event in added if event.annotation] == CITED
        assert [event.annotation_index for event in added] == [0, 1]
        end = whole[-1]
        assert end.type == "response.completed"
        assert cited_in(end.response.output) == CITED
        for number in range(len(whole) - 1):
            rest = await rest_of(client, end.response.id, number)
            assert [event.to_dict() for event in rest] == [event.to_dict() for event in whole[number + 1 :]]
        assert cited_in((await client.responses.retrieve(end.response.id)).output) == CITED
    async with npm_client(searching) as npm:
        streamed = await npm("responses.stream", {"model": "scripted", "input": "Hi"}, final="finalResponse")
        assert streamed["output"][0]["content"][0]["annotations"] == CITED


SHOWN = ["step-start", "text", "source-url", "source-url"]


@pytest.mark.client("AI SDK {version}", "stream")
@pytest.mark.parametrize("version", VERSIONS)
async def test_ai_sdks_message_has_sources_also_of_a_stream_that_it_resumes(version: str, serve: Serve) -> None:
    gate = asyncio.Event()
    actions = list(SEARCHED.actions)
    held = reply(*actions[:2], gate, *actions[2:])
    async with talking(version, serve, held) as (browser, service, _):
        chat = await browser.chat(service.url, "one")
        sending = asyncio.create_task(chat.send("Hi"))
        await chat.until(lambda: chat.kinds == SHOWN)
        page = await browser.chat(service.url, "one", messages=chat.messages[:1])
        resuming = asyncio.create_task(page("resume"))
        await page.until(lambda: page.kinds == SHOWN)
        gate.set()
        await sending
        await resuming
        for one in (chat, page):
            assert (one.status, one.text, one.kinds) == ("ready", "It rains.", SHOWN)
            bare, rain = one.parts[2:]
            assert (bare["url"], rain["url"], rain["title"]) == (BARE, RAIN["url"], "Rain")
            assert rain["providerMetadata"] == {"parley": {"start": 3, "end": 8}}
            assert bare["sourceId"] != rain["sourceId"]
        await chat.send("And again")  # what it shows is sent along, and takes nothing from what was said
        messages = (await service.client.get("/sessions/one/messages")).json()["messages"]
        assert [message["content"] for message in messages] == ["Hi", "It rains.", "And again", "It rains."]


CUSTOM = [{"name": "source", "value": source} for source in STORED]


@pytest.mark.client("{client}", "stream")
@clients
async def test_ag_uis_clients_are_told_in_events_of_our_own(searching: Service, node: str, client: str) -> None:
    customs: list[Any] = []
    [messages] = await converse(node, client, searching.url, "Hi", customs=customs)
    assert texts(messages) == [("user", "Hi"), ("assistant", "It rains.")]
    assert customs == CUSTOM


@pytest.mark.client("TanStack AI", "resume")
async def test_tanstacks_client_that_is_cut_at_any_frame_is_told_once(searching: Service, node: str) -> None:
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(searching, cut)) for cut in range(1, 9)]
        told: list[list[Any]] = [[] for _ in proxies]
        seen = await asyncio.gather(
            *[
                converse(node, "TanStack AI", proxy.url, "Hi", thread=f"thread{place}", customs=told[place])
                for place, proxy in enumerate(proxies)
            ]
        )
        assert all(proxy.connections > 1 for proxy in proxies[:-1])
    for (messages,), customs in zip(seen, told, strict=True):
        assert texts(messages)[1] == ("assistant", "It rains.")
        assert customs == CUSTOM


@pytest.mark.client("ChatKit", "stream")
async def test_chatkits_message_has_annotations(searching: Service) -> None:
    chat = Chat(searching)
    widget = await chat.begin("Hi")
    [_, shown] = widget.items.values()
    [content] = shown["content"]
    sources = [(one["source"]["type"], one["source"]["url"], one.get("index")) for one in content["annotations"]]
    assert (content["text"], sources) == ("It rains.", [("url", BARE, None), ("url", RAIN["url"], 8)])
    assert (await chat.items(widget.thread["id"]))[1]["content"] == [content]


async def test_sources_outlive_the_log_in_every_protocol(serve: Serve) -> None:
    async with Upstream(SEARCHED) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", EVENT_RETENTION="0")
        await service.client.post("/chat", json={"message": "Hi", "session_id": "one"})
        run_id = (await service.client.get("/sessions/one/messages")).json()["messages"][1]["run_id"]
        await service.restart()  # the first sweep comes with the start
        async with asyncio.timeout(PATIENCE):
            while service.rows("SELECT folded FROM runs") != [(1,)]:  # noqa: ASYNC110  # another process's table
                await asyncio.sleep(0.05)
        frames = await service.follow(run_id, format="events")
        told = [(frame.event, json.loads(frame.data)) for frame in frames if frame.data]
        assert told[1:-1] == [*[("source", source) for source in STORED], ("text.delta", {"text": "It rains."})]
        for seq in (frames[-2].seq, frames[-1].seq - 1):
            assert (await service.follow(run_id, seq, format="events"))[1:] == frames[-1:]
        [_, item] = await Chat(service).items("one")
        assert [one["source"]["url"] for one in item["content"][0]["annotations"]] == [BARE, RAIN["url"]]
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any", timeout=PATIENCE) as openai:
            response = await openai.responses.retrieve(f"resp_{run_id.removeprefix('run_')}")
            assert cited_in(response.output) == CITED
