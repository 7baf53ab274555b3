"""EventSource, the client that every browser has, through networks that break: the npm package drives itself."""

import asyncio
import json
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest

from tests.live.checks import check_run
from tests.live.conftest import Serve
from tests.live.eventsource import browse, text
from tests.live.service import PATIENCE, Service
from tests.live.wire import Proxy
from tests.programs import node_with
from tests.upstream import Upstream, calling, chunk, completion, reply, thought

MESSAGE = "Ten words that\nget lost here and are found there."
WORDS = len(MESSAGE.split())


@pytest.fixture
def node() -> str:
    return node_with("eventsource")


@pytest.mark.client("EventSource", "send", "resume")
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_an_answer_that_is_cut_anywhere_arrives_once_and_whole(serve: Serve, node: str, reset: bool) -> None:
    service = await serve(STREAM_DELAY="0.05")
    # Cut behind the cursor frame, behind each word, and behind two words of the second connection, too.
    cuts = [(first, *again) for again in ((), (3,)) for first in range(1, WORDS + 2)]
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(service, *cut, reset=reset)) for cut in cuts]
        # The package forgets the id of a frame without data. Browsers do not; so the first cut needs a key.
        urls = [
            f"{proxy.url}/chat?message={quote(MESSAGE)}" + (f"&request_id={number}" if cut[0] == 1 else "")
            for number, (proxy, cut) in enumerate(zip(proxies, cuts, strict=True))
        ]
        told = await browse(node, *urls)
    for one, proxy in zip(told, proxies, strict=True):
        assert text(one) == MESSAGE
        assert [event.name for event in one].count("lost") >= 1
        assert (one[-1].name, one[-1].code) == ("closed", 204)
        assert proxy.connections > 1
    runs = service.rows("SELECT id FROM runs")
    assert len(runs) == len(proxies)  # none was started twice
    for (run_id,) in runs:
        assert await service.answer(str(run_id)) == MESSAGE
    await check_run(service, str(runs[0][0]))


async def test_a_204_ends_it_when_the_answer_is_whole(service: Service, node: str) -> None:
    [told] = await browse(node, f"{service.url}/chat?message={quote(MESSAGE)}")
    assert text(told) == MESSAGE
    assert [event.name for event in told if event.name != "message"] == ["open", "lost", "closed"]
    assert told[-1].code == 204
    assert len(service.rows("SELECT id FROM runs")) == 1


@pytest.mark.client("EventSource", "resume")
async def test_a_killed_service_only_interrupts(serve: Serve, node: str) -> None:
    service = await serve(STREAM_DELAY="0.3")
    browsing = asyncio.create_task(browse(node, f"{service.url}/chat?message={quote(MESSAGE)}"))
    async with asyncio.timeout(PATIENCE):
        while service.rows("SELECT count(*) FROM journal")[0][0] < 3:  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await service.kill()
    await service.start()
    [told] = await browsing
    assert text(told) == MESSAGE
    assert (told[-1].name, told[-1].code) == ("closed", 204)
    [(run_id,)] = service.rows("SELECT id FROM runs")
    await check_run(service, str(run_id))


@pytest.mark.client("EventSource", "errors")
async def test_a_failure_is_told_once_and_ends_it(serve: Serve, node: str) -> None:
    service = await serve(BASE_URL="http://127.0.0.1:1/v1", OPENAI_API_KEY="none", MODEL_RETRIES="0")
    [told] = await browse(node, f"{service.url}/chat?message=Hello")
    assert [event.name for event in told] == ["open", "run.failed", "lost", "closed"]
    assert json.loads(told[1].data or "")["code"] == "upstream_unreachable"
    assert told[-1].code == 204


async def test_what_cannot_be_answered_is_not_asked_again(service: Service, node: str) -> None:
    [told] = await browse(node, f"{service.url}/chat?message=")
    assert [(event.name, event.code) for event in told] == [("closed", 422)]


@pytest.mark.client("EventSource", "stop")
async def test_a_stop_from_elsewhere_is_told_once_and_ends_it(serve: Serve, node: str) -> None:
    async with Upstream(reply(chunk("Half "), asyncio.Event())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        browsing = asyncio.create_task(browse(node, f"{service.url}/chat?message=Hello&session_id=one"))
        await upstream.request(0)
        async with asyncio.timeout(PATIENCE), service.stream("GET", "/sessions/one/events") as received:
            run_id = ((await anext(received)).id or "").partition(".")[0]
            while (await anext(received)).data is None:
                pass
        await service.client.post(f"/runs/{run_id}/cancel")
        [told] = await browsing
    assert [event.name for event in told] == ["open", "message", "run.cancelled", "lost", "closed"]
    assert (told[1].data, told[-1].code) == ("Half ", 204)
    await check_run(service, run_id)


@pytest.mark.client("EventSource", "stream", "tools")
async def test_reasoning_and_tools_are_seen_through_a_cut(serve: Serve, node: str) -> None:
    feedback = {"feedback": "Lockers", "topic": "Ginza"}
    replies = calling("call_1", "submit_feedback", feedback, thought("Hm. "), chunk("I note. ")), completion("Noted.")
    async with Upstream(*replies) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", TOOLS="examples.town_hall")
        async with Proxy(service, 4, 3) as proxy:
            [told] = await browse(node, f"{proxy.url}/chat?message=Hello&format=events")
            assert proxy.connections > 2
    events = [one for one in told if one.name not in ("open", "lost", "closed", "run.started")]
    run_id = (events[0].id or "").partition(".")[0]
    _, *whole = await service.follow(run_id, format="events")
    assert [(one.name, one.data, one.id) for one in events] == [(frame.event, frame.data, frame.id) for frame in whole]
    assert {"reasoning.delta", "tool.called", "tool.finished", "run.completed"} <= {one.name for one in events}
    assert told[-1].code == 204
    assert len(service.rows("SELECT id FROM runs")) == 1
