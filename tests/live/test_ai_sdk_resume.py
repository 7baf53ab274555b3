"""The AI SDK's chat through lost connections, closed pages, restarts and stops."""

import asyncio
from collections.abc import Callable

import pytest

from tests.live.ai_sdk import LOOK, VERSIONS, Chat, said, talking, tree
from tests.live.conftest import Serve
from tests.live.wire import Proxy
from tests.upstream import Action, Reply, calling, chunk, completion, done, finish, reply, thought

pytestmark = pytest.mark.parametrize("version", VERSIONS)


@pytest.mark.client("AI SDK {version}", "send", "stream", "resume", "stop")
async def test_stop_and_resume_together(version: str, serve: Serve) -> None:
    gate = asyncio.Event()
    replies = reply(chunk("Half "), gate), completion("Next.")
    async with talking(version, serve, *replies) as (browser, service, upstream):
        chat = await browser.chat(service.url, "one")
        sending = asyncio.create_task(chat.send("Hi"))
        await chat.until(lambda: chat.text == "Half ")
        await chat("leave")  # what the SDK calls stop only closes the connection
        await sending
        assert (chat.status, chat.finished[-1]["isAbort"]) == ("ready", True)
        again = asyncio.create_task(chat("resume"))
        page = await browser.chat(service.url, "one", messages=chat.messages[:1])
        opened = asyncio.create_task(page("resume"))
        await page.until(lambda: page.text == "Half ")
        for _ in range(2):
            assert (
                await service.client.post("/api/chat/one/stop", json={"activeStreamId": "another"})
            ).status_code == 204
        assert not opened.done()
        assert (await service.client.post("/api/chat/one/stop")).status_code == 204
        await asyncio.gather(again, opened)
        assert (chat.status, chat.parts, len(chat.messages)) == ("ready", page.parts, 2)
        assert page.part("text") == {"type": "text", "text": "Half ", "state": "done"}
        assert (await upstream.request(0)).closed.is_set()
        assert (await service.client.post("/api/chat/one/stop")).status_code == 204
        await page("resume")
        assert (page.status, page.text) == ("ready", "Half ")

        await chat.send("Go on")
        assert (await upstream.request(1)).body["messages"] == said("Hi", "Half ", "Go on")
        assert len(await tree(service, "one")) == 4


def shows(chat: Chat, text: str, *, or_cut: bool = False, since: int = -1) -> Callable[[], bool]:
    return lambda: (chat.text == text and chat.changes > since) or (or_cut and bool(chat.finished))


@pytest.mark.client("AI SDK {version}", "resume")
async def test_answer_that_is_cut_anywhere_is_rebuilt_exactly(version: str, serve: Serve) -> None:
    def replies(gate: asyncio.Event) -> list[Reply]:
        note = {"feedback": "☃", "topic": "x"}
        texts: list[Action] = [chunk("Snow "), chunk("is\n"), chunk("here "), gate, chunk("now.")]
        return [
            calling("call_1", "submit_feedback", note, thought("Hm. "), chunk("I "), chunk("note. ")),
            reply(thought("So."), *texts, finish(), done()),
        ]

    shown, gates = "I note. Snow is\nhere ", [asyncio.Event() for _ in range(40)]
    script = [one for gate in gates for one in replies(gate)]
    async with talking(version, serve, *script, TOOLS="examples.town_hall") as (browser, service, upstream):
        for cut, gate in enumerate(gates, 1):
            async with Proxy(service, cut) as proxy:
                chat = await browser.chat(proxy.url, f"cut{cut}")
                sending = asyncio.create_task(chat.send("Snow?"))
                await chat.until(shows(chat, shown, or_cut=True))
                if not chat.finished:  # it would be cut behind the gate: all before it are through
                    sending.cancel()
                    break
                await sending
                assert chat.status == "error"
                resumed = shows(chat, shown, since=chat.changes)
                resuming = asyncio.create_task(chat("resume"))
                # Also where it was cut right before the gate: an answer that is complete already cannot be resumed.
                await chat.until(resumed)
                gate.set()
                await resuming
            assert (chat.status, chat.error, len(chat.messages)) == ("ready", None, 2)
            assert [(part["type"], part.get("text"), part.get("state")) for part in chat.parts] == [
                ("step-start", None, None),
                ("reasoning", "Hm. ", "done"),
                ("text", "I note. ", "done"),
                ("tool-submit_feedback", None, "output-available"),
                ("step-start", None, None),
                ("reasoning", "So.", "done"),
                ("text", "Snow is\nhere now.", "done"),
            ]
        assert cut > 19  # so many records there are at least, however many deltas come in one
        assert len(upstream.requests) == 2 * cut


async def test_message_of_two_runs_is_resumed_whole(version: str, serve: Serve) -> None:
    gate = asyncio.Event()
    first = calling("call_1", "look", {}, thought("Hm."), chunk("I look. "))
    replies = first, reply(chunk("It "), gate, chunk("rains."), finish(), done()), completion("Bye.")
    async with talking(version, serve, *replies) as (browser, service, _):
        chat = await browser.chat(service.url, "one", body={"tools": LOOK}, outputs={"look": "grey"})
        sending = asyncio.create_task(chat.send("Weather?"))
        await chat.until(lambda: chat.text == "I look. It ")
        page = await browser.chat(service.url, "one", messages=chat.messages[:1])
        opened = asyncio.create_task(page("resume"))
        await page.until(lambda: page.text == "I look. It ")
        await chat("leave")
        await sending
        changes = chat.changes
        again = asyncio.create_task(chat("resume"))
        await chat.until(lambda: chat.changes > changes and chat.text == "I look. It ")
        gate.set()
        await asyncio.gather(opened, again)
        kinds = ["step-start", "reasoning", "text", "tool-look", "step-start", "text"]
        for one in (chat, page):
            assert (one.text, one.kinds, len(one.messages)) == ("I look. It rains.", kinds, 2)
        assert chat.messages[1]["id"] == page.messages[1]["id"]
        await page.send("Thanks")
        assert len(await tree(service, "one")) == 5


@pytest.mark.client("AI SDK {version}", "resume")
async def test_killed_service_only_interrupts(version: str, serve: Serve) -> None:
    gate = asyncio.Event()
    replies = reply(chunk("Half "), asyncio.Event()), reply(chunk("a "), gate, chunk("sentence."), finish(), done())
    async with talking(version, serve, *replies) as (browser, service, _):
        chat = await browser.chat(service.url, "one")
        sending = asyncio.create_task(chat.send("Hi"))
        await chat.until(lambda: chat.text == "Half ")
        await service.kill()
        await sending
        assert chat.status == "error"
        await service.start()
        resuming = asyncio.create_task(chat("resume"))
        await chat.until(lambda: chat.text == "Half a ")
        gate.set()
        await resuming
        assert (chat.status, chat.text, chat.kinds) == ("ready", "Half a sentence.", ["step-start", "text"])


async def test_service_that_goes_away_says_to_resume(version: str, serve: Serve) -> None:
    gate = asyncio.Event()
    replies = reply(chunk("Half "), asyncio.Event()), reply(chunk("a "), gate, chunk("sentence."), finish(), done())
    async with talking(version, serve, *replies, DRAIN_SECONDS="0") as (browser, service, _):
        chat = await browser.chat(service.url, "one")
        sending = asyncio.create_task(chat.send("Hi"))
        await chat.until(lambda: chat.text == "Half ")
        await service.terminate()
        await sending
        assert (chat.status, "resume the stream" in (chat.error or "")) == ("error", True)
        await service.start()
        resuming = asyncio.create_task(chat("resume"))
        await chat.until(lambda: chat.text == "Half a ")
        gate.set()
        await resuming
        assert (chat.status, chat.text, len(chat.messages)) == ("ready", "Half a sentence.", 2)


async def test_conversation_from_elsewhere_is_gone_on_with_and_resumed(version: str, serve: Serve) -> None:
    gate = asyncio.Event()
    parts = [
        {"type": "text", "text": "I look. "},
        {"type": "tool-look", "toolCallId": "1", "state": "output-available", "input": {"a": 1}, "output": "grey"},
    ]
    brought = [
        {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Weather?"}]},
        {"id": "a1", "role": "assistant", "parts": parts},
    ]
    async with talking(version, serve, reply(chunk("It "), gate, chunk("rains."), finish(), done())) as talk:
        browser, service, upstream = talk
        body = {"id": "one", "messages": brought, "trigger": "submit-message"}
        posting = asyncio.create_task(service.client.post("/api/chat", json=body))
        asked = (await upstream.request(0)).body["messages"]
        assert [turn["role"] for turn in asked] == ["user", "assistant", "tool"]
        page = await browser.chat(service.url, "one", messages=brought[:1])
        resuming = asyncio.create_task(page("resume"))
        await page.until(lambda: page.text == "I look. It ")
        gate.set()
        await resuming
        assert (page.text, page.part("tool-look")["output"]) == ("I look. It rains.", "grey")
        assert '"messageId": "a1"' in (await posting).text
