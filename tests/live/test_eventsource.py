"""EventSource, the client that every browser has, through networks that break: the npm package drives itself."""

import asyncio
import json
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.live.checks import check_run
from tests.live.conftest import Serve, unavailable
from tests.live.service import PATIENCE, ROOT, Service
from tests.live.wire import Proxy

SCRIPT = Path(__file__).parent / "eventsource.mjs"
MESSAGE = "Ten words that\nget lost here and are found there."
WORDS = len(MESSAGE.split())


@dataclass(frozen=True, slots=True)
class Told:
    """What a page hears of one EventSource."""

    source: int
    name: str
    data: str | None = None
    id: str | None = None
    code: int | None = None


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        unavailable("Node is not on PATH")
    if not (ROOT / "node_modules/eventsource").exists():
        unavailable("the npm package eventsource is not installed: npm ci")
    return found


async def browse(node: str, *urls: str) -> list[list[Told]]:
    """Open the URLs as EventSources; what each was told until all had given up."""
    process = await asyncio.create_subprocess_exec(node, str(SCRIPT), *urls, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(PATIENCE * 3):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    told = [Told(**json.loads(line)) for line in output.splitlines()]
    return [[one for one in told if one.source == source] for source in range(len(urls))]


def text(told: list[Told]) -> str:
    """What a page shows; it has to have heard every word once, and the end mark last."""
    messages = [one for one in told if one.name == "message"]
    assert messages[-1].data == "[DONE]"
    assert [one.id for one in messages] == list(dict.fromkeys(one.id for one in messages))
    return "".join(one.data or "" for one in messages[:-1])


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


async def test_a_failure_is_told_once_and_ends_it(serve: Serve, node: str) -> None:
    service = await serve(BASE_URL="http://127.0.0.1:1/v1", OPENAI_API_KEY="none", MODEL_RETRIES="0")
    [told] = await browse(node, f"{service.url}/chat?message=Hello")
    assert [event.name for event in told] == ["open", "run.failed", "lost", "closed"]
    assert json.loads(told[1].data or "")["code"] == "upstream_unreachable"
    assert told[-1].code == 204


async def test_what_cannot_be_answered_is_not_asked_again(service: Service, node: str) -> None:
    [told] = await browse(node, f"{service.url}/chat?message=")
    assert [(event.name, event.code) for event in told] == [("closed", 422)]
