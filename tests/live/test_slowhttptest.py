"""The service under slowhttptest, which others measure their servers with: https://github.com/shekyan/slowhttptest"""

import asyncio
import re
from pathlib import Path

from tests.live.conftest import Serve
from tests.live.service import PATIENCE, Service
from tests.patience import soon
from tests.programs import program

CONNECTIONS = 300

LONGEST = 60
"""Seconds after which it gives up on a server that shows nobody out."""

FORGIVING = {"HEADER_SECONDS": "600", "BODY_SECONDS": "600", "SEND_TIMEOUT": "600", "MAX_REPLAYS": "0"}
"""So that the deadline that a test is about is the only one that can end a connection."""


async def attacked(service: Service, folder: Path, path: str, *how: str) -> str:
    """What it says at its end, while others are answered. It ends when the last of its connections is closed."""
    asked = ["-u", f"{service.url}{path}", "-c", str(CONNECTIONS), "-r", "200", "-i", "1", "-l", str(LONGEST)]
    attack = await asyncio.create_subprocess_exec(
        program("slowhttptest"), *how, *asked, "-p", str(int(PATIENCE)),
        cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    telling = asyncio.create_task(attack.communicate())
    try:
        answered = 0
        while not telling.done():
            response = await service.client.post("/chat", json={"message": "Are you there?", "stream": False})
            assert response.json()["answer"] == "Are you there?"
            answered += 1
        assert answered
        told, _ = await soon(telling)
    finally:
        if attack.returncode is None:
            attack.kill()
            await telling
    return re.sub(r"\x1b\[[0-9;]*m", "", told.decode())


def shown_out(told: str) -> None:
    """All of its connections were closed, and its own probe was answered throughout."""
    assert "No open connections left" in told, told[-2000:]
    assert set(re.findall(r"service available: +(\w+)", told)) == {"YES"}, told[-2000:]


async def test_slow_heads_are_shown_out(serve: Serve, tmp_path: Path) -> None:
    service = await serve(**FORGIVING | {"HEADER_SECONDS": "3"}, STREAM_DELAY="0")
    shown_out(await attacked(service, tmp_path, "/health", "-H"))


async def test_slow_bodies_are_shown_out(serve: Serve, tmp_path: Path) -> None:
    service = await serve(**FORGIVING | {"BODY_SECONDS": "3"}, STREAM_DELAY="0")
    shown_out(await attacked(service, tmp_path, "/chat", "-B", "-f", "application/json", "-s", "100000"))
    assert service.rows("SELECT count(*) FROM messages WHERE role = 'user' AND content <> 'Are you there?'") == [(0,)]


async def test_slow_readers_are_dropped(serve: Serve, tmp_path: Path) -> None:
    sizes = {"MAX_MESSAGE_CHARS": "9999999", "MAX_ANSWER_CHARS": "9999999", "MAX_RUN_TOKENS": "9999999"}
    service = await serve(**FORGIVING | {"SEND_TIMEOUT": "3"}, **sizes, STREAM_DELAY="0")
    run_id = await service.begin(" ".join(f"{number:0100}" for number in range(5_000)))
    await service.ended(run_id)
    # It sees that it was dropped when it has read what is in its buffer: so it reads a lot, and seldom.
    slow = ("-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "4096")
    shown_out(await attacked(service, tmp_path, f"/runs/{run_id}/events", *slow))
