"""The clients of AG-UI as they are, and every place where one of them can be cut off."""

import asyncio
import json
import shutil
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.live.checks import check_run
from tests.live.conftest import Serve, unavailable
from tests.live.service import PATIENCE, ROOT, Service
from tests.live.wire import Proxy
from tests.upstream import Reply, Upstream, chunk, completion, done, finish, refusal, reply, sse

SCRIPT = ROOT / "tests/live/ag_ui.mjs"
MESSAGE = "Six words that are cut anywhere."
RECORDS = 5 + len(MESSAGE.split())
"""Of its answer: start and end of run and message, its words, and the opening's mark."""

clients = pytest.mark.parametrize("client", ["ag-ui", "tanstack"])


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        unavailable("Node is not on PATH")
    if not ((ROOT / "node_modules/@ag-ui/client").exists() and (ROOT / "node_modules/@tanstack/ai-client").exists()):
        unavailable("AG-UI's clients are not installed: npm ci")
    return found


async def converse(node: str, client: str, url: str, *said: str, thread: str = "thread") -> list[Any]:
    """What the client's user sees after each answer."""
    given = json.dumps({"url": f"{url}/ag-ui", "threadId": thread, "said": said})
    process = await asyncio.create_subprocess_exec(
        node, str(SCRIPT), client, given, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE * 3):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return [json.loads(line) for line in output.splitlines()]


def texts(messages: list[Any]) -> list[tuple[str, str]]:
    """Roles and texts, as both clients keep them."""
    return [(message["role"], _text(message)) for message in messages]


def _text(message: dict[str, Any]) -> str:
    parts = message.get("parts")
    return message.get("content") or "" if parts is None else "".join([part.get("content", "") for part in parts])


@clients
async def test_conversation_goes_on_in_one_session(service: Service, node: str, client: str) -> None:
    seen = await converse(node, client, service.url, "Hello there", "And again")
    said = [("user", "Hello there"), ("assistant", "Hello there"), ("user", "And again"), ("assistant", "And again")]
    assert [texts(messages) for messages in seen] == [said[:2], said]
    stored = (await service.client.get("/sessions/thread/messages")).json()["messages"]
    assert texts(stored) == said


async def test_answer_that_is_cut_at_any_frame_arrives_whole(service: Service, node: str) -> None:
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(service, cut, 2)) for cut in range(1, RECORDS + 1)]
        seen = await asyncio.gather(
            *[
                converse(node, "tanstack", proxy.url, MESSAGE, thread=f"thread{place}")
                for place, proxy in enumerate(proxies)
            ]
        )
        assert all(proxy.connections > 1 for proxy in proxies[:-1])
    for place, (messages,) in enumerate(seen):
        assert texts(messages) == [("user", MESSAGE), ("assistant", MESSAGE)]
        session = (await service.client.get(f"/sessions/thread{place}")).json()
        assert session["message_count"] == 2


def calling(call_id: str, name: str, arguments: str) -> Reply:
    call = {"index": 0, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    called = sse({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    return reply(chunk("I look. "), called, finish("tool_calls"), done())


async def test_client_runs_its_own_tools_and_sees_those_of_the_service(serve: Serve, node: str) -> None:
    feedback = json.dumps({"feedback": "Lockers", "topic": "Ginza"})
    replies = (
        calling("call_1", "submit_feedback", feedback),
        calling("call_2", "look", "{}"),
        completion("It rains."),
        completion("Bye."),
    )
    async with Upstream(*replies) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", TOOLS="examples.town_hall")
        first, second = await converse(node, "ag-ui", service.url, "Lockers, and the weather?", "Thank you")
        assert [message["role"] for message in first] == [
            "user", "assistant", "tool", "assistant", "tool", "assistant",
        ]  # fmt: skip
        called = [call["function"]["name"] for message in first for call in message.get("toolCalls", ())]
        assert called == ["submit_feedback", "look"]
        assert (first[4]["content"], first[-1]["content"], second[-1]["content"]) == ("Rain", "It rains.", "Bye.")
        last = (await upstream.request(3)).body["messages"]
        assert [turn["role"] for turn in last[1:]] == [
            "user", "assistant", "tool", "assistant", "tool", "assistant", "user",
        ]  # fmt: skip
        assert last[5]["content"] == "Rain"
        stored = (await service.client.get("/sessions/thread/messages")).json()["messages"]
        assert [message["content"] for message in stored] == [
            "Lockers, and the weather?", "I look. I look. ", "It rains.", "Thank you", "Bye.",
        ]  # fmt: skip


@clients
async def test_failure_is_an_error(serve: Serve, node: str, client: str) -> None:
    async with Upstream(refusal(401)) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        [seen] = await converse(node, client, service.url, "Hi")
        assert "credentials" in seen["error"]


@clients
async def test_stop_from_elsewhere_keeps_what_was_said(serve: Serve, node: str, client: str) -> None:
    async with Upstream(reply(chunk("Half "), asyncio.Event())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        conversing = asyncio.create_task(converse(node, client, service.url, "Hi"))
        await upstream.request(0)
        async with asyncio.timeout(PATIENCE), service.stream("GET", "/sessions/thread/events") as received:
            while (await anext(received)).data is None:
                pass
        run_id = (await service.client.get("/sessions/thread")).json()["active_run"]["run_id"]
        await service.client.post(f"/runs/{run_id}/cancel")
        [messages] = await conversing
        assert texts(messages) == [("user", "Hi"), ("assistant", "Half ")]
        await check_run(service, run_id)


async def test_run_is_joined_by_the_clients_name_for_it(service: Service) -> None:
    body = {"threadId": "thread", "runId": "mine", "messages": [{"id": "1", "role": "user", "content": "Hello there"}]}
    whole = await service.client.post("/ag-ui", json=body)
    joined = await service.client.get("/ag-ui", params={"runId": "mine", "offset": "-1"})
    again = await service.client.post("/ag-ui", json=body)
    assert whole.text == joined.text == again.text
    assert again.headers["idempotency-replayed"] == "true"
    cursor = {"Last-Event-ID": f"{whole.headers['x-run-id']}.2"}
    rest = await service.client.get("/ag-ui", params={"runId": "mine"}, headers=cursor)
    assert rest.text.split("\n\n")[1:] == whole.text.split("\n\n")[3:]
    assert (await service.client.get("/ag-ui", params={"runId": "other"})).json()["code"] == "not_found"
    other = body | {"messages": [{"id": "1", "role": "user", "content": "Something else"}]}
    assert (await service.client.post("/ag-ui", json=other)).json()["code"] == "idempotency_conflict"
