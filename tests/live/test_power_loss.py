"""What is acknowledged has been synced to the disk before, and a sync that fails acknowledges nothing."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.live.checks import settled
from tests.live.dialogue import dialogue, ends_in_trouble, following
from tests.live.service import Service, text_of
from tests.live.strace import traced
from tests.upstream import chunk, completion, done, finish, reply

WAL_WRITE = re.compile(r"pwrite64\(\d+<[^>]*-wal>, .*, (\d+), (\d+)(?:\)| <unfinished)")
SYNCED = re.compile(r"\bf(?:data)?sync\b.* = 0$")
ACKNOWLEDGED = re.compile(r"HTTP/1\.1 202|event: run\.completed")
"""A message, in the head of a response; the end of an answer, in a frame."""


def synced_at_acknowledgements(trace: Path) -> Iterator[int]:
    """How far the WAL had been synced at each acknowledgement, in bytes."""
    written = synced = 0
    for line in trace.read_text(errors="replace").splitlines():
        if write := WAL_WRITE.search(line):
            written = max(written, int(write[1]) + int(write[2]))
        elif SYNCED.search(line):
            synced = written
        elif ACKNOWLEDGED.search(line):
            yield synced


async def test_power_loss_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    words = [f"message {number} of some" for number in range(3)]
    runs: list[str] = []
    async with Service(tmp_path, STREAM_DELAY="0.002") as service:
        async with traced(
            service.pid, service.folder / "trace", "-e", "trace=pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg"
        ) as trace:
            for message in words:
                runs.append(await service.begin(message, session_id="ses_1"))
                await service.follow(runs[-1], format="events")
        shown = [await service.follow(run_id) for run_id in runs]
        await service.kill()  # folds no WAL into the file
        extents = list(synced_at_acknowledgements(trace))
    assert len(extents) == 2 * len(runs)
    for number, extent in enumerate(extents):
        begun, ended = number // 2 + 1, (number + 1) // 2
        lost_power = Service(folder := tmp_path / f"after{number}", STREAM_DELAY="0")
        folder.mkdir()
        shutil.copy(service.database, folder)
        wal = (tmp_path / "parley.db-wal").read_bytes()
        (folder / "parley.db-wal").write_bytes(wal[:extent])
        async with lost_power:
            for run_id in runs[:begun]:
                assert (await settled(lost_power, run_id))["status"] == "completed"
            assert [await lost_power.follow(run_id) for run_id in runs[:ended]] == shown[:ended]
            history = (await lost_power.client.get("/sessions/ses_1/messages")).json()["messages"]
            assert [message["content"] for message in history if message["role"] == "user"] == words[:begun]


async def test_what_cannot_be_synced_is_not_acknowledged(tmp_path: Path) -> None:
    gate = asyncio.Event()
    replies = reply(chunk("Hello"), gate, finish(), done()), completion("Again")
    failing = "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"
    async with dialogue(tmp_path, *replies) as (service, _):
        async with (
            following(service) as (received, run_id, seen),
            traced(service.pid, service.folder / "trace", *failing),
        ):
            response = await service.client.post("/chat", json={"message": "Hello", "session_id": "ses_2"})
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            gate.set()
            await ends_in_trouble(received, "store_unavailable")
            assert (await service.client.get(f"/runs/{run_id}")).json()["status"] == "running"
            assert (await service.client.get("/sessions/ses_2")).status_code == 404
        assert (await settled(service, run_id))["status"] == "completed"
        assert [frame.data for frame in await service.follow(run_id, seen)] == [None, "[DONE]"]
        again = await service.begin("Hello", session_id="ses_2")
        assert (await settled(service, again))["status"] == "completed"
        assert text_of(await service.follow(again)) == "Again"
