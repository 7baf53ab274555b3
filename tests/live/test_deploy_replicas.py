"""`deploy/compose.nginx.conf` as it is, but for addresses, in front of two services with one PostgreSQL."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from doctor.judgement import Level, judge
from doctor.probe import Target, examine
from tests.live.checks import check_run
from tests.live.conftest import Serve
from tests.live.proxies import deployed, nginx
from tests.live.service import PATIENCE, Frame, Service, frames, free_port, text_of

MESSAGE = "A dozen words or more that come from one replica or from the other."


@asynccontextmanager
async def balanced(folder: Path, first: int, second: int) -> AsyncIterator[str]:
    """nginx in front of these two ports; its URL."""
    port = free_port()
    changes = {
        "parley-1:8000": f"127.0.0.1:{first}",
        "parley-2:8000": f"127.0.0.1:{second}",
        "listen 8080": f"listen 127.0.0.1:{port}",
    }
    async with nginx(folder, deployed("compose.nginx.conf", changes), port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def two(serve: Serve, url: str) -> tuple[Service, Service]:
    settings = {"DATABASE_URL": url, "STREAM_DELAY": "0.2", "LEASE_SECONDS": "2"}
    return await serve(**settings), await serve(**settings)


async def watched(url: str, run_id: str) -> AsyncGenerator[Frame, None]:
    """As EventSource does: come back behind the last event, whenever the stream is cut, to whoever answers."""
    last: Frame | None = None
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client, asyncio.timeout(PATIENCE * 2):
        while last is None or last.data != "[DONE]":
            headers = {"Last-Event-ID": last.id} if last is not None and last.id else {}
            with suppress(httpx.TransportError):
                async with client.stream("GET", f"/runs/{run_id}/events", headers=headers) as response:
                    assert response.status_code == 200, await response.aread()
                    async for frame in frames(response):
                        if frame.data is not None:
                            last = frame
                            yield frame


async def test_client_sees_the_answer_go_on_when_a_replica_dies(two: tuple[Service, Service], tmp_path: Path) -> None:
    async with balanced(tmp_path, two[0].port, two[1].port) as url:
        run_id = await two[0].begin(MESSAGE)
        seen: list[Frame] = []
        async with aclosing(watched(url, run_id)) as watching:
            async for frame in watching:
                seen.append(frame)
                if len(seen) == 4:
                    await two[0].kill()
    assert text_of(seen) == MESSAGE
    ids = [frame.seq for frame in seen]
    assert ids == sorted(set(ids))
    await check_run(two[1], run_id)


@pytest.mark.parametrize("dead", [0, 1])
async def test_request_that_cannot_be_sent_goes_to_the_other(
    two: tuple[Service, Service], tmp_path: Path, dead: int
) -> None:
    async with balanced(tmp_path, two[0].port, two[1].port) as url, httpx.AsyncClient(base_url=url) as client:
        await two[dead].kill()
        answers = [await client.post("/chat", json={"message": "Yes?"}, timeout=PATIENCE) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4


async def test_doctor_finds_nothing_but_that_there_is_no_tls(two: tuple[Service, Service], tmp_path: Path) -> None:
    async with balanced(tmp_path, two[0].port, two[1].port) as url:
        findings = judge(await examine(Target(url, origin="http://localhost:3000", idle=1)))
    assert [finding.check for finding in findings if finding.level is not Level.OK] == ["connections"]


class Refusing:
    """Takes requests, and says 503 or hangs up."""

    def __init__(self, answer: bytes) -> None:
        self.port = 0
        self.asked: list[str] = []
        self._answer = answer

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[0].decode())
            writer.write(self._answer)
        writer.close()


@pytest.mark.parametrize(
    ("answer", "status"),
    [(b"", 502), (b"HTTP/1.1 503 Draining\r\nContent-Length: 0\r\n\r\n", 503)],
    ids=["hangs up", "says 503"],
)
@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("POST", 1), ("PATCH", 1)])
async def test_what_may_have_begun_something_is_not_sent_again(
    tmp_path: Path, method: str, times: int, answer: bytes, status: int
) -> None:
    two = Refusing(answer), Refusing(answer)
    async with AsyncExitStack() as stack:
        for one in two:
            listening = await stack.enter_async_context(await asyncio.start_server(one.meet, "127.0.0.1", 0))
            one.port = listening.sockets[0].getsockname()[1]
        url = await stack.enter_async_context(balanced(tmp_path, two[0].port, two[1].port))
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
            said = await client.request(method, "/chat", headers={"Content-Length": "0"})
    assert said.status_code == status
    assert [method] * times == two[0].asked + two[1].asked
