"""Readers of Server-Sent Events, each by the lines that its page gives, through networks that break."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.live.checks import check_run
from tests.live.conftest import Serve
from tests.live.recipes import CLIENTS, blocks, following, recipe
from tests.live.service import PATIENCE, Frame, Service, parse_frame
from tests.live.service import text_of as text_of_frames
from tests.live.wire import Proxy
from tests.upstream import Upstream, calling, chunk, completion, refusal, reply, sse, thought

MESSAGE = "  Eight words,\n\nsome of\u2028them odd: ☃ and\n that."
"""What readers trip over: spaces and line breaks at the ends of lines, and line ends that are none."""

RECORDS = len(MESSAGE.split()) + 3
"""Of an answer, at most: opening, spaces, words and end. A busy machine merges some."""

ODD = "\n  Half "

clients = pytest.mark.parametrize("client", CLIENTS)


def text_of(told: list[dict[str, Any]]) -> str:
    return "".join([event["text"] for event in told if event["event"] == "text.delta"])


async def curl(*arguments: str, until: str = "") -> list[Frame]:
    """What ``curl -N`` prints, up to the record that has this text; without one, up to the end."""
    process = await asyncio.create_subprocess_exec("curl", "-sN", *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    printed = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while line := await process.stdout.readline():
                printed += line
                if until and line == b"\n" and until in printed.decode():
                    break
    finally:
        if until:
            process.kill()
        await process.wait()
    return [frame for record in printed.decode().split("\n\n") if (frame := parse_frame(record)) is not None]


async def shown(service: Service, run_id: str, text: str) -> None:
    """Wait until the run has said this."""
    async with asyncio.timeout(PATIENCE), service.stream("GET", f"/runs/{run_id}/events") as frames:
        async for frame in frames:
            if frame.data == text:
                return


async def check_told(service: Service, told: list[dict[str, Any]]) -> dict[str, Any]:
    """The client was told everything once, by one run, and has returned; the run."""
    *events, last = told
    assert last == {"event": "returned"}, last
    run_id = events[0]["run_id"]
    _, *whole = await service.follow(run_id, format="events")
    expected = [{"event": frame.event, **json.loads(frame.data or "")} for frame in whole]
    assert [event for event in events if event["event"] != "run.started"] == expected
    return await check_run(service, run_id)


@pytest.mark.client("{client}", "send", "stream", "resume")
@clients
async def test_answer_that_is_cut_anywhere_arrives_once_and_whole(serve: Serve, client: str) -> None:
    service = await serve(STREAM_DELAY="0.05")
    cuts = [(), *((cut,) for cut in range(RECORDS)), (2, 3, 1, 4)]
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(Proxy(service, *cut, reset=bool(place % 2), torn=not place % 2))
            for place, cut in enumerate(cuts)
        ]
        async with following(client, *[proxy.url for proxy in proxies], message=MESSAGE) as followed:
            every = await followed.end()
        asked = [proxy.connections for proxy in proxies]
    for cut, one, times in zip(cuts, every, asked, strict=True):
        await check_told(service, one)
        assert text_of(one) == MESSAGE
        records = 1 + sum(event["event"] not in ("run.started", "returned") for event in one)
        if len(cut) < 2 and sum(cut) < records:  # nobody comes back for nothing
            assert times == 1 + len(cut)
    assert asked[-1] > 2
    assert service.rows("SELECT count(*) FROM runs") == [(len(proxies),)]


@pytest.mark.client("{client}", "resume")
@pytest.mark.parametrize("how", ["crash", "deploy"])
@clients
async def test_service_that_goes_away_only_interrupts(serve: Serve, client: str, how: str) -> None:
    service = await serve(STREAM_DELAY="0.3", DRAIN_SECONDS="0")
    async with following(client, service.url, message=MESSAGE) as followed:
        await followed.until(lambda told: text_of(told[0]).count(" ") > 3)
        if how == "crash":
            await service.kill()
        else:
            await service.terminate()
        await service.start()
        [told] = await followed.end()
    await check_told(service, told)
    assert text_of(told) == MESSAGE
    assert service.rows("SELECT count(*) FROM runs") == [(1,)]


@pytest.mark.client("{client}", "stream", "tools")
@clients
async def test_reasoning_and_tools_are_seen_while_it_is_written(serve: Serve, client: str) -> None:
    gate = asyncio.Event()
    feedback = {"feedback": "Lockers", "topic": "Ginza"}
    replies = calling("call_1", "submit_feedback", feedback, thought("Hm. "), chunk(ODD), gate), completion("Noted.")
    async with Upstream(*replies) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", TOOLS="examples.town_hall")
        async with following(client, service.url) as followed:
            await followed.until(lambda told: text_of(told[0]) == ODD)
            assert not gate.is_set()
            gate.set()
            [told] = await followed.end()
    await check_told(service, told)
    assert text_of(told) == ODD + "Noted."
    by_name = {event["event"]: event for event in told}
    assert by_name["reasoning.delta"]["text"] == "Hm. "
    assert json.loads(by_name["tool.called"]["arguments"]) == feedback
    assert by_name["tool.finished"]["call_id"] == "call_1"


@pytest.mark.client("{client}", "stop")
@clients
async def test_answer_that_the_client_stops_ends_there(serve: Serve, client: str) -> None:
    async with Upstream(reply(chunk(ODD), asyncio.Event())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        async with following(client, service.url, stop=True) as followed:
            [told] = await followed.end()
    assert (await check_told(service, told))["status"] == "cancelled"
    assert (text_of(told), told[-2]["event"]) == (ODD, "run.cancelled")


@pytest.mark.client("{client}", "errors")
@clients
async def test_failures_say_why_and_end_it(serve: Serve, client: str) -> None:
    gate = asyncio.Event()
    broken = reply(chunk(ODD), gate, sse({"error": {"message": "secret", "code": 500}}))
    async with Upstream(refusal(401), broken) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", MODEL_RETRIES="0")
        for shown, code in (("", "upstream_auth"), (ODD, "upstream_error")):
            async with following(client, service.url) as followed:
                gate.set()
                [told] = await followed.end()
            await check_told(service, told)
            assert (text_of(told), told[-2]["event"], told[-2]["code"]) == (shown, "run.failed", code)
        async with following(client, service.url, message="") as followed:
            [[raised]] = await followed.end()
        assert raised["event"] == "raised"
        assert "message: String should have at least 1 character" in raised["message"]
    assert service.rows("SELECT count(*) FROM runs") == [(2,)]


@pytest.mark.client("@microsoft/fetch-event-source", "resume")
async def test_page_that_is_hidden_and_shown_again_posts_again_for_one_run(serve: Serve) -> None:
    """By itself, with no key to tell that it is the same."""
    client = "@microsoft/fetch-event-source"
    service = await serve(STREAM_DELAY="0.05")
    lines = recipe(client)
    hides = """
    onmessage({ id, event, data }) {
      if (event === "text.delta") setTimeout(() => {
        for (document.hidden of [true, false]) document.dispatchEvent(new Event("visibilitychange"))
      })
"""
    keyed, heard = ', "Idempotency-Key": crypto.randomUUID()', "\n    onmessage({ id, event, data }) {\n"
    for old, new in ((keyed, ""), (heard, hides)):
        assert lines.count(old) == 1
        lines = lines.replace(old, new)
    async with Proxy(service) as proxy:
        async with following(client, proxy.url, message=MESSAGE, lines=lines) as followed:
            [told] = await followed.end()
        assert proxy.connections > 3
    await check_told(service, told)
    assert text_of(told) == MESSAGE
    assert service.rows("SELECT count(*) FROM runs") == [(1,)]


@pytest.mark.client("requests", "send", "stream", "resume")
async def test_query_stream_is_read_to_its_end_by_lines(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.05")
    lines = (
        recipe("requests")
        + """
def chat(url, message):
    return ({"event": "text.delta", "text": text} for text in ask(url, message))
"""
    )
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(service, cut, 2)) for cut in range(RECORDS + 1)]
        async with following("requests", *[proxy.url for proxy in proxies], message=MESSAGE, lines=lines) as followed:
            every = await followed.end()
    assert [(text_of(told), told[-1]["event"]) for told in every] == [(MESSAGE, "returned")] * len(proxies)
    runs = service.rows("SELECT id FROM runs")
    assert len(runs) == len(proxies)
    for (run_id,) in runs:
        assert await service.answer(str(run_id)) == MESSAGE
    async with following("requests", service.url, message="", lines=lines) as followed:
        [[raised]] = await followed.end()
    assert "prompt: String should have at least 1 character" in raised["message"]


@pytest.mark.client("curl", "send", "stream", "resume")
async def test_curl_goes_on_behind_the_last_event_it_saw_or_from_the_beginning(serve: Serve, tmp_path: Path) -> None:
    service = await serve(STREAM_DELAY="0.05")
    [lines] = [block for block in blocks("docs/clients.md", "sh") if "Last-Event-ID" in block]
    assert lines.count('"Hello again"') == 1
    lines = lines.replace('"Hello again"', json.dumps(MESSAGE))

    async def cut(at: int, *, torn: bool) -> str:
        folder = tmp_path / f"{at}-{torn}"
        folder.mkdir()
        async with Proxy(service, at, torn=torn) as proxy:
            script = lines.replace("http://localhost:8000", proxy.url)
            process = await asyncio.create_subprocess_exec("sh", "-c", script, cwd=folder)
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == 0
            assert proxy.connections == 2
        records = [parse_frame(record) for record in (folder / "whole").read_text().split("\n\n")]
        return text_of_frames([frame for frame in records if frame is not None])

    cuts = [(at, torn) for at in range(RECORDS) for torn in (False, True)]
    assert await asyncio.gather(*[cut(at, torn=torn) for at, torn in cuts]) == [MESSAGE] * len(cuts)
    assert service.rows("SELECT count(*) FROM runs") == [(len(cuts),)]


@pytest.mark.client("curl", "resume", "stop", "tools", "errors")
async def test_curl_sees_tools_a_crash_a_stop_and_a_failure(serve: Serve) -> None:
    feedback = {"feedback": "Lockers", "topic": "Ginza"}
    broken = reply(chunk("Half "), sse({"error": {"message": "secret", "code": 500}}))
    replies = calling("call_1", "submit_feedback", feedback, chunk("I note. ")), reply(chunk("Not"), asyncio.Event())
    async with Upstream(*replies, reply(chunk("ed."), asyncio.Event()), broken) as upstream:
        service = await serve(
            BASE_URL=upstream.base_url, MODEL_NAME="scripted", MODEL_RETRIES="0", TOOLS="examples.town_hall"
        )
        chat = f"{service.url}/chat?message=Hi&format=events"

        first = await curl(chat, until="Not")
        last = first[-1].id or ""
        await service.restart()
        run_id = last.partition(".")[0]
        again = asyncio.create_task(
            curl(f"{service.url}/runs/{run_id}/events?format=events", "-H", f"Last-Event-ID: {last}")
        )
        await upstream.request(2)
        await shown(service, run_id, "ed.")
        await curl("-X", "POST", f"{service.url}/runs/{run_id}/cancel")
        _, *rest = await again
        assert first[1:] + rest == (await service.follow(run_id, format="events"))[1:]
        assert {"tool.called", "tool.finished", "seam", "run.cancelled"} <= {frame.event for frame in first + rest}
        assert await service.answer(run_id) == "I note. Noted."
        await check_run(service, run_id)

        failed = await curl(chat)
        assert failed[-1].event == "run.failed"
        assert "secret" not in (failed[-1].data or "")
