"""The service in a process of its own, and clients that talk to it over loopback."""

import asyncio
import os
import random
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.live.nursery import SERVER, Child, bear

ROOT = Path(__file__).parents[2]

PATIENCE = 20.0
"""Seconds after which what should happen is taken as not happening; generous, these tests share their machine."""

PORTS = range(20_000, 32_000)
"""Below those that outgoing connections are given. A client that knocks while its service is down could be given the
service's own port, and connect to itself."""

MOST_PROCESSES = 64
"""Of pytest-xdist, which share the ports."""

_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Frame:
    """One SSE record as it came: the parts that were there, the data lines joined by newlines."""

    id: str | None = None
    event: str | None = None
    data: str | None = None
    retry: int | None = None

    @property
    def seq(self) -> int:
        assert self.id is not None
        return int(self.id.rpartition(".")[2])


def parse_frame(record: str) -> Frame | None:
    """A record without its blank line; None for comments."""
    fields: dict[str, list[str]] = {}
    for line in record.split("\n"):
        name, _, value = line.partition(":")
        if name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
    if not fields:
        return None
    single = {name: values[-1] for name, values in fields.items()}
    data = "\n".join(fields["data"]) if "data" in fields else None
    retry = int(single["retry"]) if "retry" in single else None
    return Frame(single.get("id"), single.get("event"), data, retry)


async def frames(response: httpx.Response) -> AsyncIterator[Frame]:
    """The records of an open stream, as they come."""
    buffer = ""
    async for text in response.aiter_text():
        buffer += text
        *records, buffer = buffer.split("\n\n")
        for record in records:
            if (frame := parse_frame(record)) is not None:
                yield frame
    assert not buffer, f"the stream ended inside a record: {buffer!r}"


async def read_all(response: httpx.Response) -> list[Frame]:
    async with asyncio.timeout(PATIENCE * 2):
        return [frame async for frame in frames(response)]


def text_of(received: list[Frame]) -> str:
    """The answer that plain text frames carry."""
    return "".join(frame.data for frame in received if frame.event is None and frame.data not in (None, "[DONE]"))


class Service:
    """``python server.py`` with a database in a folder of its own; it keeps its port over restarts."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.database = folder / "parley.db"
        self.log = folder / "log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "DATABASE_URL": f"sqlite:///{self.database}",
            "STREAM_DELAY": "0.02",
            **settings,
        }
        self.command: list[str] | None = None
        """What starts it; None for ``python server.py``, which then costs less."""
        self.client = httpx.AsyncClient(base_url=self.url, timeout=PATIENCE)
        self.process: asyncio.subprocess.Process | Child | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.log.exists():
            sys.stderr.write(self.log.read_text()[-20_000:])
        await self.client.aclose()
        await self.kill()

    async def start(self, *, ready: bool = True) -> None:
        """Start the process; return when it answers, and with ``ready`` when it takes work."""
        await self.spawn()
        await self.until_up(ready=ready)

    async def until_up(self, *, ready: bool = True) -> None:
        """Wait for the process that was started."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            while not await self._answers("/ready" if ready else "/health"):
                assert self.process.returncode is None, f"the service ended: {self.log.read_text()}"
                await asyncio.sleep(0.02)

    async def spawn(self) -> None:
        """Start the process, and do not wait for it."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= self.settings
        if self.command is None and "WORKERS" not in self.settings and hasattr(os, "pidfd_open"):
            self.process = bear(environment, self.folder, self.log)
            return
        command = self.command or [sys.executable, str(SERVER)]
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )

    async def kill(self) -> None:
        """SIGKILL, to the workers as well."""
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM; the exit status when it has gone."""
        self.send_signal(signal.SIGTERM)
        return await self.exit()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def exit(self) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), PATIENCE * 2)

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    @asynccontextmanager
    async def stream(self, method: str, path: str, **arguments: object) -> AsyncIterator[AsyncIterator[Frame]]:
        """The frames of a stream; leaving the block closes the connection."""
        client = httpx.AsyncClient(base_url=self.url, timeout=PATIENCE)
        async with client, client.stream(method, path, **arguments) as response:  # type: ignore[arg-type]
            if response.status_code != 200:
                await response.aread()
                raise AssertionError(f"{response.status_code}: {response.text}")
            yield frames(response)

    async def follow(self, run_id: str, after: int | None = None, **query: str) -> list[Frame]:
        """Every frame of a run up to the stream's end."""
        headers = {} if after is None else {"Last-Event-ID": f"{run_id}.{after}"}
        async with self.client.stream("GET", f"/runs/{run_id}/events", params=query, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            return await read_all(response)

    async def begin(self, message: str, **body: object) -> str:
        """Start a run and leave it alone; its id."""
        response = await self.client.post(
            "/chat", json={"message": message, **body}, headers={"Prefer": "respond-async"}
        )
        assert response.status_code == 202, response.text
        return str(response.json()["run_id"])

    async def ended(self, run_id: str) -> dict[str, object]:
        """The run, when it has ended."""
        async with asyncio.timeout(PATIENCE * 2):
            await self.follow(run_id)
            while True:
                run: dict[str, object] = (await self.client.get(f"/runs/{run_id}")).json()
                if run["status"] not in ("queued", "running"):
                    return run
                await asyncio.sleep(0.05)

    async def answer(self, run_id: str) -> str:
        """What the history says that the run answered."""
        run = (await self.client.get(f"/runs/{run_id}")).json()
        messages = (await self.client.get(f"/sessions/{run['session_id']}/messages?limit=200")).json()["messages"]
        return str(next(message["content"] for message in messages if message["message_id"] == run["answer_id"]))

    def rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Look into the database, beside the service."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=PATIENCE)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    async def _answers(self, path: str) -> bool:
        try:
            return (await self.client.get(path)).status_code == 200
        except httpx.TransportError:
            return False


def free_port() -> int:
    """A port for a service, which it keeps while it is down: so each of the processes that test has its own to draw."""
    ours = PORTS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) :: MOST_PROCESSES]
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.choice(ours)))
            return int(probe.getsockname()[1])
