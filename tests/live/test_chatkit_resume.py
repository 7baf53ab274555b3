"""Answers for ChatKit's widget through lost connections and crashes."""

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest

from tests.live.chatkit import Chat, operation, said, until
from tests.live.conftest import Serve
from tests.live.service import PATIENCE, Service, frames
from tests.live.test_tools import FEEDBACK
from tests.live.wire import Proxy
from tests.upstream import Reply, Upstream, calling, chunk, done, finish, reply, thought
from tests.widget import Widget, known, same, text_of

MESSAGE = "Six words that are cut anywhere."
RECORDS = 3 + 2 + len(MESSAGE.split()) + 2
"""Of its answer: what comes before it, the begin of the item, its words, and its end."""

chatkit = pytest.mark.client


@chatkit("ChatKit", "stream")
async def test_answer_that_is_cut_at_any_record_is_in_the_thread(service: Service) -> None:
    async def cut(proxy: Proxy) -> tuple[str, Widget]:
        widget, text = Widget(), ""
        async with httpx.AsyncClient(base_url=proxy.url, timeout=PATIENCE) as client:
            body = operation("threads.create", input=said(MESSAGE))
            async with client.stream("POST", "/chatkit", json=body) as response:
                thread_id = response.headers["x-session-id"]
                try:
                    async for part in response.aiter_text():
                        text += part
                except httpx.TransportError:
                    pass
        widget.see(*[json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")])
        return thread_id, widget

    chat = Chat(service)
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(service, place)) for place in range(1, RECORDS + 1)]
        results = await asyncio.gather(*[cut(proxy) for proxy in proxies])
    assert {widget.text for _, widget in results} >= {"", "Six ", "Six words ", MESSAGE}
    for thread_id, widget in results:
        items = await chat.items(thread_id)
        assert text_of(items).startswith(widget.text), "what was shown is stored"
        [run] = service.rows("SELECT id FROM runs WHERE session_id = ?", thread_id)
        await service.ended(str(run[0]))
        assert text_of(await chat.items(thread_id)) == MESSAGE
        assert service.rows("SELECT count(*) FROM runs WHERE session_id = ?", thread_id) == [(1,)]


@chatkit("ChatKit", "resume")
async def test_retry_after_a_lost_connection_brings_the_answer_that_goes_on(serve: Serve) -> None:
    gate = asyncio.Event()
    async with Upstream(reply(chunk("Half "), gate, chunk("and half"), finish(), done())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        chat, before, after = Chat(service), Widget(), Widget()
        async with chat.open("threads.create", input=said("Hi")) as received:
            await until(received, before, "Half ")
        thread_id, [user_id, answer_id] = before.thread["id"], before.items
        assert same(await chat.items(thread_id), list(before.items.values()))  # as far as it has come
        async with chat.open("threads.retry_after_item", thread_id=thread_id, item_id=user_id) as received:
            await until(received, after, "Half ")
            gate.set()
            async with asyncio.timeout(PATIENCE):
                after.see(*[event async for event in received])
        assert list(after.items) == [answer_id]
        assert after.text == "Half and half" == text_of(await chat.items(thread_id))
        assert len(upstream.requests) == 1


async def seen_of(proxy: Proxy, body: dict[str, Any], text: str) -> Widget:
    """What a widget has of an answer when its connection is lost, or when it leaves as soon as it has this text."""
    widget = Widget()
    async with httpx.AsyncClient(base_url=proxy.url, timeout=PATIENCE) as client:
        with suppress(httpx.TransportError):
            async with client.stream("POST", "/chatkit", json=body) as response:
                async for frame in frames(response):
                    widget.see(*([known(json.loads(frame.data))] if frame.data is not None else []))
                    if widget.text == text:
                        break
    return widget


@chatkit("ChatKit", "resume")
async def test_answer_that_is_cut_anywhere_is_rebuilt_exactly(serve: Serve) -> None:
    def replies(gate: asyncio.Event) -> list[Reply]:
        return [
            calling("call_1", "submit_feedback", FEEDBACK, thought("Hm. "), chunk("I "), chunk("note. ")),
            reply(thought("So."), chunk("Snow "), chunk("is\n"), chunk("here "), gate, chunk("now."), finish(), done()),
        ]

    shown, gates = "I note. Snow is\nhere ", [asyncio.Event() for _ in range(60)]
    async with Upstream(*[one for gate in gates for one in replies(gate)]) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", TOOLS="examples.town_hall")
        chat = Chat(service)
        for cut, gate in enumerate(gates):
            body = operation("threads.create", input=said("Snow?")) | {"metadata": {"request_id": f"cut{cut}"}}
            async with Proxy(service, cut) as proxy:
                before = await seen_of(proxy, body, shown)
            if before.items:
                params = {"thread_id": before.thread["id"], "item_id": next(iter(before.items))}
                body = operation("threads.retry_after_item", **params)
            after = Widget()  # without its message, all that it can do is to ask the same again
            async with service.stream("POST", "/chatkit", json=body) as received:
                events = (known(json.loads(frame.data)) async for frame in received if frame.data is not None)
                await until(events, after, shown)
                gate.set()
                async with asyncio.timeout(PATIENCE):
                    after.see(*[event async for event in events])
            items = await chat.items((before.thread or after.thread)["id"])
            assert after.text == f"{shown}now." == text_of(items)
            assert same(items[1:], list(after.items.values())[0 if before.items else 1 :])
            assert [*before.items] == [item["id"] for item in items][: len(before.items)]
            if before.text == shown:
                break
        assert cut > 20  # so many records there are at least, however many deltas come in one
        assert len(upstream.requests) == 2 * (cut + 1)


@chatkit("ChatKit", "resume")
@pytest.mark.parametrize("shown", ["", "Half "])
async def test_killed_service_goes_on_with_the_answer(serve: Serve, shown: str) -> None:
    gate = asyncio.Event()
    first = reply(*([chunk(shown)] if shown else []), asyncio.Event())
    rest = reply(chunk("a "), gate, chunk("sentence."), finish(), done())
    async with Upstream(first, rest) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        chat, before, after = Chat(service), Widget(), Widget()
        async with chat.open("threads.create", input=said("Hi")) as received:
            async with asyncio.timeout(PATIENCE):
                while not before.items or before.text != shown:
                    before.see(await anext(received))
            await upstream.request(0)
            await service.kill()
        await service.start()
        thread_id, user_id = before.thread["id"], next(iter(before.items))
        async with chat.open("threads.retry_after_item", thread_id=thread_id, item_id=user_id) as received:
            await until(received, after, f"{shown}a ")
            assert text_of(await chat.items(thread_id)) == f"{shown}a "
            gate.set()
            async with asyncio.timeout(PATIENCE):
                after.see(*[event async for event in received])
        assert after.text == f"{shown}a sentence." == text_of(await chat.items(thread_id))
        assert [event["type"] for event in after.beside] == ["stream_options", *(["notice"] if shown else [])]
        assert service.rows("SELECT count(*) FROM runs") == [(1,)]


async def test_cursor_goes_on_behind_what_was_seen(service: Service) -> None:
    body = operation("threads.create", input=said(MESSAGE))
    whole = (await service.client.post("/chatkit", json=body)).text
    [*_, place] = [line for line in whole.split("\n") if line.startswith("id: ") and line.endswith(".3")]
    rest = await service.client.post("/chatkit", json=body, headers={"Last-Event-ID": place.removeprefix("id: ")})
    assert rest.text.removeprefix(": ping\n\n") == whole.partition(place)[2].partition("\n\n")[2]
    assert service.rows("SELECT count(*) FROM runs") == [(1,)]
