"""Faults to order, ``?chaos=``: each client recovers from them as it does from real ones, to the exact text."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from playwright.async_api import expect

from tests.live.ai_sdk import VERSIONS, browsing
from tests.live.browser import chromium
from tests.live.checks import check_run
from tests.live.conftest import Serve
from tests.live.eventsource import Told, browse
from tests.live.openai_clients import text_of
from tests.live.service import PATIENCE, Frame, Service, parse_frame
from tests.live.test_ag_ui import converse, texts
from tests.live.test_readme_frontends import block, showing
from tests.live.workers import workers
from tests.programs import node_with, program

MESSAGE = "Eight words that break off and go on."
WORDS = len(MESSAGE.split())
SAID = f"message={quote(MESSAGE)}"


@pytest.fixture
def node() -> str:
    return node_with("eventsource", "@tanstack/ai-client")


async def chaotic(serve: Serve, **settings: str) -> Service:
    return await serve(CHAOS="true", **settings)


@asynccontextmanager
async def started_again_when_killed(service: Service) -> AsyncIterator[None]:
    """As a container's engine does it, once."""

    async def start_again() -> None:
        assert await service.exit() == -signal.SIGKILL
        await service.start()

    starting = asyncio.create_task(start_again())
    yield
    async with asyncio.timeout(PATIENCE):
        await starting


async def records(response: httpx.Response) -> tuple[list[str], bool]:
    """The records of a stream, and whether it came to its end."""
    received = ""
    try:
        async for text in response.aiter_text():
            received += text
    except httpx.RemoteProtocolError:
        return received.split("\n\n")[:-1], False
    return received.split("\n\n")[:-1], True


def seqs(received: list[str]) -> list[int]:
    """The numbers in their ids."""
    return [int(number) for number in re.findall(r"^id: \S+\.([0-9]+)$", "\n\n".join(received), re.MULTILINE)]


# --- every stream there is


def streams(number: int) -> list[tuple[str, str, Any]]:
    """A request for a new answer, by each protocol."""
    said = [{"role": "user", "content": MESSAGE}]
    parts = [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": MESSAGE}]}]
    agent = {"threadId": f"agent{number}", "runId": f"r{number}", "messages": [{"id": "1", **said[0]}]}
    return [
        ("POST", "/chat", {"message": MESSAGE}),
        ("GET", f"/chat?{SAID}", None),
        ("POST", "/api/chat", {"messages": said}),
        ("POST", "/api/chat", {"id": f"ui{number}", "messages": parts}),
        ("POST", "/query/stream", {"prompt": MESSAGE}),
        ("POST", "/ag-ui", agent),
        ("POST", "/v1/chat/completions", {"messages": said, "stream": True}),
        ("POST", "/v1/responses", {"input": MESSAGE, "stream": True}),
    ]


async def asked(client: httpx.AsyncClient, method: str, path: str, body: Any) -> tuple[list[str], bool, str]:
    async with client.stream(method, path, json=body) as response:
        assert response.status_code == 200, await response.aread()
        return *(await records(response)), response.headers["x-run-id"]


def ordered(path: str, chaos: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}chaos={chaos}"


async def test_stream_of_every_protocol_is_dropped_behind_its_frame_and_the_run_goes_on(serve: Serve) -> None:
    service = await chaotic(serve)
    for method, path, body in streams(1):
        received, ended, run_id = await asked(service.client, method, ordered(path, "drop@4"), body)
        assert (seqs(received)[-1], ended) == (4, False), path
        assert await service.answer((await check_run(service, run_id))["run_id"]) == MESSAGE
        follow = f"/runs/{run_id}/events?chaos=drop@3,drop@4,drop@6"
        received, ended, _ = await asked(service.client, "GET", follow, None)
        assert (seqs(received), ended) == ([0, 1, 2, 3], False)
        received, ended, _ = await asked(service.client, "GET", follow, None)
        assert (seqs(received)[-1], ended) == (6, False)  # the same URL: who has it all again gets on
        again = {"Last-Event-ID": f"{run_id}.6"}
        async with service.client.stream("GET", follow, headers=again) as response:
            received, ended = await records(response)
        assert (seqs(received)[0], ended) == (6, True)


async def test_frames_of_every_protocol_come_twice_with_the_same_id(serve: Serve) -> None:
    service = await chaotic(serve, STREAM_DELAY="0.05")
    for method, path, body in streams(2):
        received, ended, _ = await asked(service.client, method, ordered(path, "dup"), body)
        assert ended
        assert received[::2] == received[1::2], path
        assert len(set(seqs(received))) > WORDS


async def test_stalled_stream_has_no_pings(serve: Serve) -> None:
    service = await chaotic(serve, STREAM_DELAY="0.01", PING_SECONDS="0.02")
    async with service.client.stream("POST", "/chat?chaos=stall@3:30s", json={"message": MESSAGE}) as response:
        received = ""
        texts = response.aiter_text()
        async with asyncio.timeout(PATIENCE):
            while not received.endswith("\n\n") or seqs(received.split("\n\n"))[-1] < 3:
                received += await anext(texts)
        run_id = response.headers["x-run-id"]
        assert (await service.ended(run_id))["status"] == "completed"
        # The answer is whole by now, and pings were due by the dozen.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(texts), 0.5)
    assert seqs(received.split("\n\n"))[-1] == 3


async def test_stream_that_is_not_asked_for_is_left_alone(serve: Serve) -> None:
    service = await chaotic(serve)
    whole = await service.client.post("/chat?chaos=kill@1,dup", json={"message": MESSAGE, "stream": False})
    assert whole.json()["answer"] == MESSAGE


# --- clients


def shown(told: list[Told]) -> str:
    """What a page shows that looks at the ids."""
    messages = {one.id: one.data or "" for one in told if one.name == "message"}
    *words, end = messages.values()
    assert end == "[DONE]"
    return "".join(words)


async def test_eventsource_recovers_from_everything_but_a_kill(serve: Serve, node: str) -> None:
    service = await chaotic(serve)
    faults = [f"drop@{place}" for place in range(1, WORDS + 2)]
    faults += ["stall@2:300ms", "dup", "drop@2,drop@5", "stall@1:200ms,dup,drop@4"]
    told = await browse(node, *[f"{service.url}/chat?{SAID}&request_id={fault}&chaos={fault}" for fault in faults])
    for fault, one in zip(faults, told, strict=True):
        assert shown(one) == MESSAGE, fault
        lost, messages = [event.name for event in one].count("lost"), [e for e in one if e.name == "message"]
        assert lost == fault.count("drop") + (f"drop@{WORDS + 1}" not in fault), fault  # and once for the end
        assert (len(messages) > len({event.id for event in messages})) == ("dup" in fault)
        assert (one[-1].name, one[-1].code) == ("closed", 204)
    assert service.rows("SELECT count(*) FROM runs") == [(len(faults),)]


async def test_eventsource_recovers_from_kills(serve: Serve, node: str) -> None:
    service = await chaotic(serve)
    async with started_again_when_killed(service):
        [told] = await browse(node, f"{service.url}/chat?{SAID}&chaos=kill@3")
    assert shown(told) == MESSAGE
    [(run_id,)] = service.rows("SELECT id FROM runs")
    await check_run(service, str(run_id))


async def test_worker_that_is_killed_is_started_again_by_its_parent(serve: Serve, node: str) -> None:
    service = await chaotic(serve, WORKERS="2")
    before = await workers(service, 2)
    [told] = await browse(node, f"{service.url}/chat?{SAID}&chaos=kill@3")
    assert shown(told) == MESSAGE
    async with asyncio.timeout(PATIENCE):
        while len(set(after := await workers(service, 2)) & set(before)) != 1:  # noqa: ASYNC110  # another process's children
            await asyncio.sleep(0.02)
    assert len(after) == 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_ai_sdk_recovers_from_a_drop_and_from_a_kill(version: str, serve: Serve) -> None:
    service = await chaotic(serve, STREAM_DELAY="0.3")
    async with browsing(version) as browser:
        dropped = await browser.chat(service.url, "one", query="chaos=stall@1:100ms,drop@3")
        await dropped.send(MESSAGE)
        assert (dropped.status, len(dropped.text.split())) == ("error", 3)
        await dropped("resume")  # to the same query, and from the answer's beginning
        assert (dropped.status, dropped.text) == ("ready", MESSAGE)
        killed = await browser.chat(service.url, "two", query="chaos=kill@2")
        async with started_again_when_killed(service):
            await killed.send(MESSAGE)
        assert (killed.status, len(killed.text.split())) == ("error", 2)
        await killed("resume")
        assert (killed.status, killed.text, len(killed.messages)) == ("ready", MESSAGE, 2)


async def test_tanstack_recovers_at_the_exact_frame(serve: Serve, node: str) -> None:
    service = await chaotic(serve)
    faults = "drop@1,drop@4,stall@5:100ms,drop@6"
    [seen] = await converse(node, "TanStack AI", service.url, MESSAGE, query=f"?chaos={faults}")
    assert texts(seen) == [("user", MESSAGE), ("assistant", MESSAGE)]
    struck = re.findall(r"chaos: (\S+@\d+)", service.log.read_text())
    assert struck == ["drop@1", "drop@4", "stall@5", "drop@6"]


async def until_cut(stream: Any) -> list[Any]:
    events: list[Any] = []

    async def read() -> None:
        async for event in stream:
            events.append(event)  # noqa: PERF401  # those before the cut count

    with pytest.raises(openai.APIConnectionError):
        await read()
    return events


async def test_openai_client_resumes_a_response_that_was_dropped(serve: Serve) -> None:
    service = await chaotic(serve)
    async with AsyncOpenAI(
        base_url=f"{service.url}/v1", api_key="any", timeout=PATIENCE, default_query={"chaos": "drop@3,drop@5"}
    ) as client:
        assert [model.id async for model in await client.models.list()] == ["echo"]
        events: list[Any] = []
        stream: Any = await client.responses.create(input=MESSAGE, stream=True, background=True)
        for _ in range(2):
            events += await until_cut(stream)
            after = events[-1].sequence_number
            stream = await client.responses.retrieve(events[0].response.id, stream=True, starting_after=after)
        events += [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert text_of(events) == MESSAGE


async def test_readmes_fetch_loop_recovers_from_everything(serve: Serve) -> None:
    service = await chaotic(serve)
    faults = "stall@1:100ms,drop@2,dup,kill@4"
    script = block("js").replace("/chat`", f"/chat?chaos={faults}`")
    use = f"""
        for await (const {{ text }} of chat("{service.url}", "{MESSAGE}")) answer.append(text ?? "")
        answer.append(" END")"""
    async with chromium() as browser, started_again_when_killed(service):
        page = await browser.new_page()
        async with showing(page, f'<pre id="answer"></pre><script type="module">{script}{use}</script>'):
            await expect(page.locator("#answer")).to_have_text(f"{MESSAGE} END")
    assert service.rows("SELECT count(*) FROM runs") == [(1,)]


async def test_curl_recovers_with_the_last_id(serve: Serve) -> None:
    curl_program = program("curl")
    service = await chaotic(serve)

    async def curl(*more: str) -> tuple[int, list[Frame]]:
        line = (curl_program, "-sN", f"{service.url}/chat?{SAID}&session_id=one&chaos=drop@4,dup,drop@5", *more)
        process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
        assert process.returncode is not None
        found = [parse_frame(record) for record in output.decode().split("\n\n")]
        return process.returncode, [frame for frame in found if frame is not None]

    received: dict[str | None, Frame] = {}
    last: tuple[str, ...] = ()
    for cut in (4, 5, None):
        status, frames = await curl(*last)
        assert (status, frames[-1].seq) == ((18, cut) if cut else (0, frames[-1].seq))  # 18: a body without its end
        last = ("-H", f"Last-Event-ID: {frames[-1].id}")
        received |= {frame.id: frame for frame in frames if frame.data is not None}
    assert "".join([frame.data or "" for frame in received.values()]) == f"{MESSAGE}[DONE]"
