"""The AI SDK's own chat and transport, unmodified, versions 6 and 7, as clients of ours."""

import json

import pytest

from chat.generation import DENIED
from tests.live.ai_sdk import LOOK, VERSIONS, said, talking, tree
from tests.live.conftest import Serve
from tests.upstream import calling, chunk, completion, refusal, reply, sse, thought

pytestmark = pytest.mark.parametrize("version", VERSIONS)


@pytest.mark.client("AI SDK {version}", "send")
@pytest.mark.parametrize("last", [False, True], ids=["whole", "last message"])
async def test_conversation_edit_and_another_answer(version: str, serve: Serve, last: bool) -> None:
    replies = completion("One ", "is."), completion("Two."), completion("Again."), completion("Edited.")
    async with talking(version, serve, *replies) as (browser, service, upstream):
        chat = await browser.chat(service.url, "one", last=last)
        await chat.send("First")
        assert (chat.status, chat.text, chat.kinds) == ("ready", "One is.", ["step-start", "text"])
        assert chat.messages[-1]["metadata"]["usage"]["output_tokens"] == 2
        await chat.send("Second")
        assert (await upstream.request(1)).body["messages"] == said("First", "One is.", "Second")
        await chat("regenerate")
        assert (await upstream.request(2)).body["messages"] == said("First", "One is.", "Second")
        assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
        assert (chat.text, chat.finished[-1]["finishReason"]) == ("Again.", "stop")
        whole = [("First", None), ("One is.", "First"), ("Second", "One is."), ("Two.", "Second"), ("Again.", "Second")]
        assert await tree(service, "one") == whole

        await chat.send("Changed", messageId=chat.messages[2]["id"])
        if last:  # the service does not know what the page calls its own messages
            assert (chat.status, "send the whole conversation" in (chat.error or "")) == ("error", True)
            return
        assert (await upstream.request(3)).body["messages"] == said("First", "One is.", "Changed")
        await chat("regenerate", messageId=chat.messages[1]["id"])
        assert (await upstream.request(4)).body["messages"] == said("First")
        await chat.send("Anew", messageId=chat.messages[0]["id"])
        assert (await upstream.request(5)).body["messages"] == said("Anew")
        assert (await tree(service, "one"))[5:] == [
            ("Changed", "One is."), ("Edited.", "Changed"), ("Edited.", "First"), ("Anew", None), ("Edited.", "Anew"),
        ]  # fmt: skip


async def test_stored_conversation_is_taken_up_in_a_new_page(version: str, serve: Serve) -> None:
    replies = completion("One."), completion("Two."), completion("Three."), completion("Four.")
    async with talking(version, serve, *replies) as (browser, service, upstream):
        first = await browser.chat(service.url, "one")
        await first.send("First")
        stored = (await service.client.get("/sessions/one/messages")).json()["messages"]
        messages = [
            {"id": one["message_id"], "role": one["role"], "parts": [{"type": "text", "text": one["content"]}]}
            for one in stored
        ]
        page = await browser.chat(service.url, "one", messages=messages, last=True)
        await page.send("Second")
        assert (await upstream.request(1)).body["messages"] == said("First", "One.", "Second")
        await page("regenerate", messageId=stored[1]["message_id"])
        assert (await upstream.request(2)).body["messages"] == said("First")
        await page.send("Changed", messageId=stored[0]["message_id"])
        assert (await upstream.request(3)).body["messages"] == said("Changed")
        assert (await tree(service, "one"))[-2:] == [("Changed", None), ("Four.", "Changed")]


@pytest.mark.client("AI SDK {version}", "tools")
async def test_reasoning_and_the_services_own_tools_are_shown(version: str, serve: Serve) -> None:
    feedback = {"feedback": "Lockers", "topic": "Ginza"}
    replies = calling("call_1", "submit_feedback", feedback, thought("He "), thought("wants."), chunk("I note. "))
    async with talking(version, serve, replies, completion("Noted."), TOOLS="examples.town_hall") as (
        browser,
        service,
        _,
    ):
        chat = await browser.chat(service.url, "one", outputs={"submit_feedback": "nobody may ask the client"})
        await chat.send("Lockers, please")
        kinds = ["step-start", "reasoning", "text", "tool-submit_feedback", "step-start", "text"]
        assert (chat.status, chat.kinds, chat.text) == ("ready", kinds, "I note. Noted.")
        assert (chat.part("reasoning")["text"], chat.part("reasoning")["state"]) == ("He wants.", "done")
        call = chat.part("tool-submit_feedback")
        assert (call["state"], call["input"], call["output"]["status"]) == ("output-available", feedback, "received")
        await chat.send("Thanks")
        assert await tree(service, "one") == [
            ("Lockers, please", None), ("I note. Noted.", "Lockers, please"),
            ("Thanks", "I note. Noted."), ("Noted.", "Thanks"),
        ]  # fmt: skip


@pytest.mark.client("AI SDK {version}", "tools")
@pytest.mark.parametrize("last", [False, True], ids=["whole", "last message"])
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
async def test_client_runs_its_own_tools(version: str, serve: Serve, last: bool, at_once: bool) -> None:
    replies = (
        calling("call_1", "look", {"city": "Oslo"}, chunk("I look. ")),
        completion("It rains."),
        completion("Bye."),
    )
    async with talking(version, serve, *replies) as (browser, service, upstream):
        outputs = {"look": {"sky": "grey"}} if at_once else {}
        chat = await browser.chat(service.url, "one", last=last, body={"tools": LOOK}, outputs=outputs)
        await chat.send("Weather?")
        if not at_once:
            call = chat.part("tool-look")
            assert (call["state"], call["input"], chat.text) == ("input-available", {"city": "Oslo"}, "I look. ")
            assert chat.finished[-1]["finishReason"] == "tool-calls"
            await chat("output", tool="look", toolCallId="call_1", output={"sky": "grey"})
            await chat.until(lambda: len(chat.finished) == 2)
        assert [message["role"] for message in chat.messages] == ["user", "assistant"]
        assert (chat.text, chat.kinds) == (
            "I look. It rains.",
            ["step-start", "text", "tool-look", "step-start", "text"],
        )
        asked = (await upstream.request(1)).body["messages"]
        assert [turn["role"] for turn in asked] == ["user", "assistant", "tool"]
        assert json.loads(asked[2]["content"]) == {"sky": "grey"}

        await chat.send("Thanks")
        asked = (await upstream.request(2)).body["messages"]
        assert [turn["role"] for turn in asked] == ["user", "assistant", "tool", "assistant", "user"]
        assert await tree(service, "one") == [
            ("Weather?", None), ("I look. ", "Weather?"), ("It rains.", "I look. "), ("Thanks", "It rains."),
            ("Bye.", "Thanks"),
        ]  # fmt: skip


@pytest.mark.parametrize("last", [False, True], ids=["whole", "last message"])
async def test_answer_of_two_runs_is_given_anew_as_one(version: str, serve: Serve, last: bool) -> None:
    replies = calling("call_1", "look", {}), completion("It rains."), completion("Wet."), completion("Grey.")
    async with talking(version, serve, *replies) as (browser, service, upstream):
        chat = await browser.chat(service.url, "one", last=last, body={"tools": LOOK}, outputs={"look": "grey"})
        await chat.send("Weather?")
        assert chat.text == "It rains."
        await chat("regenerate", messageId=chat.messages[1]["id"])
        await chat("regenerate")
        assert (chat.text, len(chat.messages)) == ("Grey.", 2)
        for number in (2, 3):
            assert (await upstream.request(number)).body["messages"] == said("Weather?")
        assert (await tree(service, "one"))[3:] == [("Wet.", "Weather?"), ("Grey.", "Weather?")]
        again = await service.client.post("/api/chat", json={"id": "one", "trigger": "regenerate-message"})
        assert "Grey." in again.text


async def test_client_says_that_its_tool_failed(version: str, serve: Serve) -> None:
    replies = calling("call_1", "look", {}), completion("A pity.")
    async with talking(version, serve, *replies) as (browser, service, upstream):
        chat = await browser.chat(service.url, "one", body={"tools": LOOK})
        await chat.send("Weather?")
        await chat("output", tool="look", toolCallId="call_1", state="output-error", errorText="No window.")
        await chat.until(lambda: chat.text == "A pity.")
        assert (await upstream.request(1)).body["messages"][-1]["content"] == "Error: No window."


@pytest.mark.parametrize("approved", [True, False], ids=["yes", "no"])
async def test_call_waits_for_the_users_yes(version: str, serve: Serve, approved: bool) -> None:
    order = calling("call.1", "order", {"article": "tea"}, chunk("I "), thought("Hm."), chunk("order. "))
    replies = order, completion("Well."), completion("Bye.")
    async with talking(version, serve, *replies, TOOLS="tests.live.careful_tool") as (browser, service, upstream):
        chat = await browser.chat(service.url, "one")
        await chat.send("Tea!")
        assert (chat.status, chat.part("tool-order")["state"]) == ("ready", "approval-requested")
        other = await browser.chat(service.url, "one", messages=chat.messages[:1])
        await other("resume")  # a page that is opened meanwhile sees the same, and may say it as well
        assert other.messages == chat.messages
        await other("approve", id=other.part("tool-order")["approval"]["id"], approved=approved)
        await other.until(lambda: len(other.finished) == 2)
        call = other.part("tool-order")
        assert (call["state"], other.text) == ("output-available" if approved else "output-denied", "I order. Well.")
        assert other.kinds == ["step-start", "text", "reasoning", "text", "tool-order", "step-start", "text"]
        told = (await upstream.request(1)).body["messages"][-1]["content"]
        assert told == (call["output"] if approved else f"Error: {DENIED}")
        assert len((await service.client.get("/records")).json()["records"]) == approved

        await chat("approve", id=chat.part("tool-order")["approval"]["id"], approved=approved)
        await chat.until(lambda: len(chat.finished) == 2)
        assert chat.parts == other.parts
        await chat.send("Thanks")
        assert await tree(service, "one") == [
            ("Tea!", None),
            ("I order. Well.", "Tea!"),
            ("Thanks", "I order. Well."),
            ("Bye.", "Thanks"),
        ]
        assert len(upstream.requests) == 3


async def test_decision_that_comes_too_late_is_an_error(version: str, serve: Serve) -> None:
    replies = calling("call_1", "order", {"article": "tea"}), completion("Well.")
    async with talking(version, serve, *replies, TOOLS="tests.live.careful_tool") as (browser, service, _):
        chat = await browser.chat(service.url, "one")
        await chat.send("Tea!")
        assert (await service.client.post("/api/chat/one/stop")).status_code == 204
        await chat("approve", id=chat.part("tool-order")["approval"]["id"], approved=True)
        await chat.until(lambda: chat.finished[-1]["isDisconnect"] is False and len(chat.finished) == 2)
        await chat("look")
        assert (chat.status, "already_decided" in (chat.error or "")) == ("error", True)


async def test_page_that_saw_less_than_was_stored_adds_no_branch(version: str, serve: Serve) -> None:
    async with talking(version, serve, completion("All ", "of it."), completion("Next.")) as (
        browser,
        service,
        upstream,
    ):
        chat = await browser.chat(service.url, "one")
        await chat.send("Hi")
        messages = chat.messages
        messages[1]["parts"] = [{"type": "text", "text": "All "}]
        page = await browser.chat(service.url, "one", messages=messages)
        await page.send("Go on")
        assert (await upstream.request(1)).body["messages"] == said("Hi", "All of it.", "Go on")


@pytest.mark.client("AI SDK {version}", "errors")
async def test_failures_before_and_within_the_stream(version: str, serve: Serve) -> None:
    broken = reply(chunk("Half "), sse({"error": {"message": "secret", "code": 500}}))
    async with talking(version, serve, refusal(401), broken, completion("Whole.")) as (browser, service, upstream):
        chat = await browser.chat(service.url, "one")
        await chat.send("Hi")
        assert (chat.status, chat.error) == ("error", "The model's server does not accept this service's credentials.")
        await chat("regenerate")
        assert (chat.status, chat.error, chat.text) == ("error", "The model reported an error.", "Half ")
        await chat("regenerate")
        assert (chat.status, chat.error, chat.text, len(chat.messages)) == ("ready", None, "Whole.", 2)
        assert (await upstream.request(2)).body["messages"] == said("Hi")
        await chat("files")
        assert "files are not taken" in (chat.error or "")
        wrong = await browser.chat(service.url, "a/b")
        await wrong.send("Hi")
        assert "id: String should match" in (wrong.error or "")
