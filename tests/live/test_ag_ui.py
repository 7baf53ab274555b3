"""The clients of AG-UI as they are, and every place where one of them can be cut off."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.live.checks import check_run
from tests.live.conftest import Serve
from tests.live.service import PATIENCE, ROOT, Service
from tests.live.wire import Proxy
from tests.programs import node_with
from tests.upstream import Upstream, calling, chunk, completion, done, finish, refusal, reply

SCRIPT = ROOT / "tests/live/ag_ui.mjs"
MESSAGE = "Six words that are cut anywhere."
RECORDS = 4 + len(MESSAGE.split())
"""Of its answer: start and end of run and message, and its words."""

LOOKS = (
    calling("call_1", "submit_feedback", {"feedback": "Lockers", "topic": "Ginza"}, chunk("I look. ")),
    calling("call_2", "look", {}, chunk("I look. ")),
    completion("It rains."),
    completion("Bye."),
)
"""A tool of the service, then one of the client."""

ROLES = ["user", "assistant", "tool", "assistant", "tool", "assistant", "user"]
"""What the model is asked in the end, behind the system's prompt."""

clients = pytest.mark.parametrize("client", ["AG-UI", "TanStack AI"])


@pytest.fixture
def node() -> str:
    return node_with("@ag-ui/client", "@tanstack/ai-client")


async def converse(
    node: str,
    client: str,
    url: str,
    *said: str,
    thread: str = "thread",
    query: str = "",
    shown: asyncio.Queue[str] | None = None,
    customs: list[Any] | None = None,
) -> list[Any]:
    """What the client's user sees after each answer, and in ``shown`` while it is written.

    ``customs`` are for events of ours that AG-UI has no name for.
    """
    given = json.dumps({"url": f"{url}/ag-ui{query}", "threadId": thread, "said": said})
    process = await asyncio.create_subprocess_exec(
        node, str(SCRIPT), client, given, cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=2**20
    )
    assert process.stdout is not None
    seen: list[Any] = []
    try:
        async with asyncio.timeout(PATIENCE * 3):
            while line := await process.stdout.readline():
                told = json.loads(line)
                if "custom" in told:
                    if customs is not None:
                        customs.append(told["custom"])
                elif "shown" not in told:
                    seen.append(told)
                elif shown is not None:
                    shown.put_nowait(told["shown"])
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return seen


def texts(messages: list[Any]) -> list[tuple[str, str]]:
    """Roles and texts, as both clients keep them."""
    return [(message["role"], _text(message)) for message in messages]


def _text(message: dict[str, Any]) -> str:
    parts = message.get("parts")
    if parts is None:
        return message.get("content") or ""
    return "".join([part["content"] for part in parts if part["type"] == "text"])


@pytest.mark.client("{client}", "send")
@clients
async def test_conversation_goes_on_in_one_session(service: Service, node: str, client: str) -> None:
    seen = await converse(node, client, service.url, "Hello there", "And again")
    said = [("user", "Hello there"), ("assistant", "Hello there"), ("user", "And again"), ("assistant", "And again")]
    assert [texts(messages) for messages in seen] == [said[:2], said]
    stored = (await service.client.get("/sessions/thread/messages")).json()["messages"]
    assert texts(stored) == said


@pytest.mark.client("TanStack AI", "resume")
async def test_answer_that_is_cut_at_any_frame_arrives_whole(service: Service, node: str) -> None:
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(Proxy(service, cut, 2, torn=torn))
            for cut in range(1, RECORDS + 1)
            for torn in (False, True)
        ]
        seen = await asyncio.gather(
            *[
                converse(node, "TanStack AI", proxy.url, MESSAGE, thread=f"thread{place}")
                for place, proxy in enumerate(proxies)
            ]
        )
        assert all(proxy.connections > 1 for proxy in proxies[:-2])
    for place, (messages,) in enumerate(seen):
        assert texts(messages) == [("user", MESSAGE), ("assistant", MESSAGE)]
        session = (await service.client.get(f"/sessions/thread{place}")).json()
        assert session["message_count"] == 2


@pytest.mark.client("AG-UI", "tools")
async def test_client_runs_its_own_tools_and_sees_those_of_the_service(serve: Serve, node: str) -> None:
    async with Upstream(*LOOKS) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", TOOLS="examples.town_hall")
        first, second = await converse(node, "AG-UI", service.url, "Lockers, and the weather?", "Thank you")
        assert [message["role"] for message in first] == [
            "user", "assistant", "tool", "assistant", "tool", "assistant",
        ]  # fmt: skip
        called = [call["function"]["name"] for message in first for call in message.get("toolCalls", ())]
        assert called == ["submit_feedback", "look"]
        assert (first[4]["content"], first[-1]["content"], second[-1]["content"]) == ("Rain", "It rains.", "Bye.")
        last = (await upstream.request(3)).body["messages"]
        assert [turn["role"] for turn in last[1:]] == ROLES
        assert last[5]["content"] == "Rain"
        stored = (await service.client.get("/sessions/thread/messages")).json()["messages"]
        assert [message["content"] for message in stored] == [
            "Lockers, and the weather?", "I look. I look. ", "It rains.", "Thank you", "Bye.",
        ]  # fmt: skip


@pytest.mark.client("TanStack AI", "tools")
async def test_tanstacks_client_runs_its_own_tools_and_sees_those_of_the_service(serve: Serve, node: str) -> None:
    async with Upstream(*LOOKS) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", TOOLS="examples.town_hall")
        first, second = await converse(node, "TanStack AI", service.url, "Lockers, and the weather?", "Thank you")
        assert texts(second) == [
            ("user", "Lockers, and the weather?"), ("assistant", "I look. "), ("assistant", "I look. "),
            ("assistant", "It rains."), ("user", "Thank you"), ("assistant", "Bye."),
        ]  # fmt: skip
        calls = [part for message in first for part in message["parts"] if part["type"] == "tool-call"]
        assert [call["name"] for call in calls] == ["submit_feedback", "look"]
        assert (calls[0]["output"]["status"], calls[1]["output"]) == ("received", "Rain")
        last = (await upstream.request(3)).body["messages"]
        assert [turn["role"] for turn in last[1:]] == ROLES
        assert last[5]["content"] == "Rain"


@pytest.mark.client("{client}", "errors")
@clients
async def test_failure_is_an_error(serve: Serve, node: str, client: str) -> None:
    async with Upstream(refusal(401)) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        [seen] = await converse(node, client, service.url, "Hi")
        assert "credentials" in seen["error"]


@pytest.mark.client("{client}", "stream", "stop")
@clients
async def test_stop_from_elsewhere_keeps_what_was_said(serve: Serve, node: str, client: str) -> None:
    async with Upstream(reply(chunk("Half "), asyncio.Event())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        shown: asyncio.Queue[str] = asyncio.Queue()
        conversing = asyncio.create_task(converse(node, client, service.url, "Hi", shown=shown))
        async with asyncio.timeout(PATIENCE):
            while await shown.get() != "Half ":
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


async def test_cursor_that_no_frame_has_is_refused(serve: Serve) -> None:
    gate = asyncio.Event()
    async with Upstream(reply(chunk("Half "), gate, chunk("and half."), finish(), done())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        body = {"threadId": "thread", "runId": "mine", "messages": [{"id": "1", "role": "user", "content": "Hi"}]}
        async with service.stream("POST", "/ag-ui", json=body) as stream:
            frames = [await anext(stream) for _ in range(3)]  # the run's begin, the message's, and the text
            run_id = (frames[0].id or "").partition(".")[0]

            async def asked(method: str, cursor: str) -> tuple[int, str]:
                about: dict[str, Any] = {"params": {"runId": "mine"}} if method == "GET" else {"json": body}
                response = await service.client.request(method, "/ag-ui", headers={"Last-Event-ID": cursor}, **about)
                return response.status_code, response.json()["code"]

            for method in ("GET", "POST"):
                assert await asked(method, f"{run_id}.3") == (409, "cursor_ahead")
                assert await asked(method, "run_other.1") == (
                    (409, "cursor_mismatch") if method == "GET" else (404, "not_found")
                )
            following = asyncio.create_task(
                service.client.get("/ag-ui", params={"runId": "mine"}, headers={"Last-Event-ID": f"{run_id}.2"})
            )
            gate.set()
            frames += [frame async for frame in stream]
        last = len(frames) - 1
        assert "and half." in (await following).text
        for method in ("GET", "POST"):
            assert await asked(method, f"{run_id}.{last + 1}") == (409, "cursor_ahead")
        seen = await service.client.get(
            "/ag-ui", params={"runId": "mine"}, headers={"Last-Event-ID": f"{run_id}.{last}"}
        )
        assert "RUN_FINISHED" in seen.text  # to a client that has seen it, but not the end of its stream
