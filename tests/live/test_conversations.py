"""Branches of a conversation, and what of them the model is told."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.checks import check_run
from tests.live.dialogue import ask, dialogue, run_of
from tests.live.service import PATIENCE, Service
from tests.upstream import Upstream, chunk, completion, reply

User, Assistant, System = "user", "assistant", "system"
Turns = list[tuple[str, str]]

ANSWERS = [completion(f"Answer {number}.") for number in range(1, 9)]


async def told(upstream: Upstream, number: int = -1) -> Turns:
    """What the model was told in its latest request, or in that one."""
    number %= max(len(upstream.requests), 1)
    return [(turn["role"], turn["content"]) for turn in (await upstream.request(number)).body["messages"]]


async def say(service: Service, message: str, **body: Any) -> dict[str, Any]:
    """Say something in the session ``one``; the run, when it has ended."""
    run_id, _ = await ask(service, message, session_id="one", **body)
    return await check_run(service, run_id)


async def api_chat(service: Service, *turns: tuple[str, str], **body: object) -> dict[str, Any]:
    """The same by a client that brings its whole view along."""
    messages = [{"role": role, "content": content} for role, content in turns]
    response = await service.client.post("/api/chat", json={"messages": messages, "sessionId": "one", **body})
    assert response.status_code == 200, response.text
    assert response.headers["x-session-id"] == "one"
    return await check_run(service, response.headers["x-run-id"])


async def history(service: Service) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = (await service.client.get("/sessions/one/messages")).json()["messages"]
    return messages


async def branch(service: Service) -> Turns:
    """The session as it stands: from the root to the message that the next one follows."""
    by_id = {message["message_id"]: message for message in await history(service)}
    leaf, turns = (await service.client.get("/sessions/one")).json()["leaf_id"], []
    while leaf is not None:
        turns.append((by_id[leaf]["role"], by_id[leaf]["content"]))
        leaf = by_id[leaf]["parent_id"]
    return turns[::-1]


async def test_the_model_is_told_the_whole_conversation(tmp_path: Path) -> None:
    async with dialogue(tmp_path, *ANSWERS, SYSTEM_PROMPT="Be brief.") as (service, upstream):
        said: Turns = []
        for number, message in enumerate(("One?", "Two?", "Three?"), 1):
            await say(service, message)
            said.append((User, message))
            assert await told(upstream) == [(System, "Be brief."), *said]
            said.append((Assistant, f"Answer {number}."))
        assert await branch(service) == said


async def test_a_parent_branches_and_the_model_is_told_that_branch_alone(tmp_path: Path) -> None:
    async with dialogue(tmp_path, *ANSWERS) as (service, upstream):
        first = await say(service, "One?")
        await say(service, "Two?")
        edited = await say(service, "Two, but better?", parent_id=first["answer_id"])
        assert await told(upstream) == [(User, "One?"), (Assistant, "Answer 1."), (User, "Two, but better?")]
        await say(service, "And then?")  # goes on from the latest branch
        assert await told(upstream) == [
            (User, "One?"), (Assistant, "Answer 1."),
            (User, "Two, but better?"), (Assistant, "Answer 3."), (User, "And then?"),
        ]  # fmt: skip
        await say(service, "All anew.", parent_id=None)
        assert await told(upstream) == [(User, "All anew.")]
        assert await branch(service) == [(User, "All anew."), (Assistant, "Answer 5.")]
        await say(service, "Back there.", parent_id=edited["answer_id"])
        assert (await told(upstream))[-2:] == [(Assistant, "Answer 3."), (User, "Back there.")]
        assert len(await history(service)) == 12  # nothing is lost by branching
        for wrong in (first["message_id"], "msg_nobody", first["run_id"]):
            body = {"message": "No.", "session_id": "one", "parent_id": wrong}
            assert (await service.client.post("/chat", json=body)).json()["code"] == "invalid_request"
        elsewhere = {"message": "No.", "session_id": "two", "parent_id": first["answer_id"]}
        assert (await service.client.post("/chat", json=elsewhere)).json()["code"] == "invalid_request"
        assert (await service.client.get("/sessions/two")).status_code == 404  # not even begun


async def test_a_retry_answers_once_more_beside_the_first_answer(tmp_path: Path) -> None:
    async with dialogue(tmp_path, *ANSWERS) as (service, upstream):
        await say(service, "One?")
        first = await say(service, "Two?")
        response = await service.client.post(f"/runs/{first['run_id']}/retry", json={})
        assert response.status_code == 200
        again = await check_run(service, response.headers["x-run-id"])
        assert await told(upstream, 1) == await told(upstream, 2)
        assert again["message_id"] == first["message_id"]
        assert again["answer_id"] != first["answer_id"]
        answers = [message for message in await history(service) if message["parent_id"] == first["message_id"]]
        assert [answer["content"] for answer in answers] == ["Answer 2.", "Answer 3."]
        assert [message["content"] for message in await history(service) if message["role"] == User] == ["One?", "Two?"]
        await say(service, "Three?")
        assert (await told(upstream))[-3:] == [(User, "Two?"), (Assistant, "Answer 3."), (User, "Three?")]
        key = {"Idempotency-Key": "retry-once"}
        retries = [await service.client.post(f"/runs/{first['run_id']}/retry", headers=key) for _ in range(2)]
        assert retries[0].headers["x-run-id"] == retries[1].headers["x-run-id"]
        assert retries[1].headers["idempotency-replayed"] == "true"
        assert (await service.client.post("/runs/run_nobody/retry")).status_code == 404


async def test_a_retry_while_the_session_answers_is_refused_or_waits(tmp_path: Path) -> None:
    gate = asyncio.Event()
    held = reply(chunk("Wait"), gate)
    async with dialogue(tmp_path, ANSWERS[0], held, ANSWERS[2]) as (service, _):
        first = await say(service, "One?")
        busy = await service.begin("Two?", session_id="one")
        refused = await service.client.post(f"/runs/{first['run_id']}/retry")
        assert (refused.status_code, refused.json()["run_id"]) == (409, busy)
        response = await service.client.post(
            f"/runs/{first['run_id']}/retry", json={"on_busy": "interrupt", "stream": False}
        )
        assert (response.status_code, response.json()["answer"]) == (200, "Answer 3.")
        assert (await check_run(service, busy))["status"] == "cancelled"


async def test_api_chat_follows_the_stored_tree_as_far_as_the_client_agrees(tmp_path: Path) -> None:
    async with dialogue(tmp_path, *ANSWERS) as (service, upstream):
        view: Turns = [(User, "One?")]
        await api_chat(service, *view)
        view += [(Assistant, "Answer 1."), (User, "Two?")]
        await api_chat(service, *view)
        assert await told(upstream) == view
        assert len(await history(service)) == 4  # what the client repeated is not stored again
        edited = [*view[:2], (User, "Two, but better?")]
        await api_chat(service, *edited)
        assert await told(upstream) == edited
        assert len(await history(service)) == 6
        await api_chat(service, *view, (Assistant, "Answer 2."), (User, "Three?"))  # back on the first branch
        assert await told(upstream) == [*view, (Assistant, "Answer 2."), (User, "Three?")]
        foreign: Turns = [(User, "One?"), (Assistant, "I never said that."), (User, "Two?")]
        await api_chat(service, *foreign)
        assert await told(upstream) == foreign
        assert await branch(service) == [*foreign, (Assistant, "Answer 5.")]


async def test_api_chat_with_a_single_message_continues_what_is_stored(tmp_path: Path) -> None:
    async with dialogue(tmp_path, *ANSWERS) as (service, upstream):
        await api_chat(service, (User, "One?"))
        await api_chat(service, (User, "Two?"))
        assert await told(upstream) == [(User, "One?"), (Assistant, "Answer 1."), (User, "Two?")]


async def test_api_chat_takes_history_that_it_has_never_seen(tmp_path: Path) -> None:
    async with dialogue(tmp_path, *ANSWERS) as (service, upstream):
        view: Turns = [(User, "Elsewhere?"), (Assistant, "Said elsewhere."), (User, "And here?")]
        await api_chat(service, *view)
        assert await told(upstream) == view
        assert await branch(service) == [*view, (Assistant, "Answer 1.")]


async def test_the_clients_system_message_goes_to_the_model_and_not_into_the_history(tmp_path: Path) -> None:
    async with dialogue(tmp_path, *ANSWERS, SYSTEM_PROMPT="Be brief.") as (service, upstream):
        run = await api_chat(service, (System, "Speak French."), (User, "One?"))
        expected = [(System, "Be brief."), (System, "Speak French."), (User, "One?")]
        assert await told(upstream) == expected
        assert await branch(service) == [(User, "One?"), (Assistant, "Answer 1.")]
        await service.client.post(f"/runs/{run['run_id']}/retry")
        assert await told(upstream) == expected  # another answer to the same request
        await api_chat(service, (User, "Two?"))
        assert (System, "Speak French.") not in await told(upstream)


async def test_the_context_is_cut_from_its_old_end(tmp_path: Path) -> None:
    # 400 bytes, 9 of them for the prompt.
    sizes = {"CONTEXT_TOKENS": "100", "SYSTEM_PROMPT": "Be brief.", "SUMMARIES": "false"}
    texts = [f"{number}{'x' * 48}." for number in range(9)]  # 50 bytes each, and 16 for being a message
    answers = [completion(text) for text in texts[1::2]]
    async with dialogue(tmp_path, *answers, **sizes) as (service, upstream):
        for text in texts[0::2]:
            await say(service, text)
        # Five fit into 391 bytes: three questions with the two answers between them.
        roles = [User, Assistant, User, Assistant, User]
        assert await told(upstream) == [(System, "Be brief."), *zip(roles, texts[4:9], strict=True)]
        # The question itself is sent, however long it is; an answer without its question is not.
        await say(service, "q" * 1_000)
        assert await told(upstream) == [(System, "Be brief."), (User, "q" * 1_000)]
        assert len(await history(service)) == 12


async def test_an_answer_that_never_came_is_not_told_and_half_of_one_is(tmp_path: Path) -> None:
    gate = asyncio.Event()
    silent, half = reply(gate), reply(chunk("Half an ans"), gate)
    async with dialogue(tmp_path, silent, half, ANSWERS[2]) as (service, upstream):
        for number, message in enumerate(("One?", "Two?")):
            async with service.stream("POST", "/chat", json={"message": message, "session_id": "one"}) as stream:
                run_id = run_of(await anext(stream))
                await upstream.request(number)
                if number == 1:
                    assert (await anext(stream)).data == "Half an ans"
                await service.client.post(f"/runs/{run_id}/cancel")
            await check_run(service, run_id)
        await say(service, "Three?")
        assert await told(upstream) == [(User, "One?"), (User, "Two?"), (Assistant, "Half an ans"), (User, "Three?")]


async def test_sessions_do_not_hear_each_other(tmp_path: Path) -> None:
    async with dialogue(tmp_path, *ANSWERS) as (service, upstream):
        await say(service, "One?")
        await ask(service, "Who am I?", session_id="two")
        assert await told(upstream) == [(User, "Who am I?")]
        await ask(service, "Nobody's.")
        assert await told(upstream) == [(User, "Nobody's.")]


@pytest.mark.parametrize("path", ["/chat", "/api/chat"])
async def test_a_session_of_another_user_is_not_there(tmp_path: Path, path: str) -> None:
    async with dialogue(tmp_path, *ANSWERS) as (service, _):
        await say(service, "One?", user_id="alice")

        async def knock(user: str) -> httpx.Response:
            said = {"message": "Two?", "messages": [{"role": User, "content": "Two?"}]}
            names = {"session_id": "one", "user_id": user} if path == "/chat" else {"sessionId": "one", "userId": user}
            return await service.client.post(path, json=said | names, timeout=PATIENCE)

        assert (await knock("bob")).json()["code"] == "not_found"
        assert (await knock("alice")).status_code == 200
