"""What has to hold after every fault, whatever it was."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.live.service import PATIENCE, Frame, Service

ENDS = {"run.completed", "run.failed", "run.cancelled", "run.interrupted"}


async def check_run(service: Service, run_id: str) -> dict[str, Any]:
    """The run ended once, its ids have no gap and no repeat, and what is followed is what is stored; the run."""
    run: dict[str, Any] = await service.ended(run_id)
    first, *log = await service.follow(run_id, format="events")
    assert (first.event, first.seq) == ("run.started", 0)
    assert [frame.seq for frame in log] == list(range(1, len(log) + 1))
    assert [frame.event for frame in log if frame.event in ENDS] == [f"run.{run['status']}"]
    assert log[-1].event == run["last_event"]
    text = "".join([str(member(frame, "text")) for frame in log if frame.event == "text.delta"])
    assert text == await service.answer(run_id)
    if run["status"] == "completed":
        assert member(log[-1], "text_length") == len(text)
        assert member(log[-1], "text_sha256") == hashlib.sha256(text.encode()).hexdigest()
    assert (await service.follow(run_id, format="events"))[1:] == log
    plain = await service.follow(run_id)
    assert [frame.id for frame in plain if frame.id] == [frame.id for frame in (first, *log)]
    assert (await service.client.get("/health")).status_code == 200
    return run


async def settled(service: Service, run_id: str) -> dict[str, Any]:
    """As :func:`check_run`, and more: every cursor leads to the rest, and nothing is left to do; the run."""
    run = await check_run(service, run_id)
    for style in ("text", "events"):
        _, *whole = await service.follow(run_id, format=style)
        for after in range(len(whole)):
            _, *rest = await service.follow(run_id, after, format=style)
            assert rest == whole[after:]
    assert (await cursor(service, run_id, len(whole))).status_code == 204
    assert (await cursor(service, run_id, len(whole) + 1)).json()["code"] == "cursor_ahead"
    session = (await service.client.get(f"/sessions/{run['session_id']}")).json()
    assert session["active_run"] is None
    messages = (await service.client.get(f"/sessions/{run['session_id']}/messages?limit=200")).json()["messages"]
    [message] = [message for message in messages if message["run_id"] == run_id]
    assert (message["message_id"], message["status"]) == (run["answer_id"], run["status"])
    assert session["message_count"] == len(messages)
    return run


async def cursor(service: Service, run_id: str, seq: int) -> httpx.Response:
    """The answer to a client that has seen the run's events up to ``seq``."""
    return await service.client.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": f"{run_id}.{seq}"})


def member(frame: Frame, name: str) -> object:
    """A member of the frame's JSON data."""
    assert frame.data is not None
    return json.loads(frame.data)[name]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what nobody tells us, because it happens in another process."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def memory(service: Service) -> int:
    """Bytes of main memory that the service's process has; its workers' are not counted."""
    status = Path(f"/proc/{service.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def descriptors(service: Service) -> int:
    """What the service's process has open, without its database: a reader opens that when it is first needed."""
    return sum("/parley.db" not in target for target in _descriptors(service))


def sockets(service: Service) -> int:
    """Sockets that the service's process has open."""
    return sum(target.startswith("socket:") for target in _descriptors(service))


async def sockets_fall_to(service: Service, count: int) -> None:
    """Wait until no more sockets are open than before: each client that has gone is noticed."""
    async with asyncio.timeout(PATIENCE):
        while sockets(service) > count:  # noqa: ASYNC110  # the kernel sets no event
            await asyncio.sleep(0.05)


def _descriptors(service: Service) -> Iterator[str]:
    folder = Path(f"/proc/{service.pid}/fd")
    for descriptor in folder.iterdir():
        try:
            yield str(descriptor.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
