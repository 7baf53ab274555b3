"""What is said and deleted is in no byte of what a service has written, whichever way it is deleted."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.live.conftest import Serve
from tests.live.service import PATIENCE, Service, text_of
from tests.live.test_transfer import transfer

CANARY = "canaryzephyr"


def files_with_it(service: Service) -> set[str]:
    """The database's files and the log, if the canary is in them."""
    files = [file for file in service.folder.iterdir() if file.is_file()]
    assert service.database in files
    return {file.name for file in files if CANARY.encode() in file.read_bytes().lower()}


async def say(service: Service, text: str, user: str, session: str) -> None:
    body = {"message": text, "user_id": user, "session_id": session, "request_id": f"key-{session}"}
    async with service.stream("POST", "/chat", json=body) as frames:
        assert text in text_of([frame async for frame in frames])


async def until_erased(service: Service) -> None:
    """The first sweep comes with the start, and the next one ten seconds later."""
    async with asyncio.timeout(PATIENCE * 2):
        while files_with_it(service):  # noqa: ASYNC110  # another process's files
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", ["session", "user", "retention"])
async def test_what_was_deleted_is_in_no_byte_of_the_files(serve: Serve, way: str) -> None:
    service = await serve(STREAM_DELAY="0")
    await say(service, f"about the {CANARY} and more", "ann", "anns")
    await say(service, "something else", "bob", "bobs")
    found = (await service.client.get("/search", params={"q": CANARY})).json()["results"]
    assert len(found) == 2
    assert files_with_it(service)
    if way == "retention":
        service.settings["HISTORY_RETENTION"] = "0.001"
    else:
        path = "/sessions/anns" if way == "session" else "/users/ann"
        assert (await service.client.delete(path)).status_code == 204
    await service.restart()
    await until_erased(service)
    assert (await service.client.get("/sessions/anns")).status_code == 404
    assert (await service.client.get("/search", params={"q": CANARY})).json()["results"] == []
    there = (await service.client.get("/sessions")).json()["sessions"]
    assert [session["session_id"] for session in there] == ([] if way == "retention" else ["bobs"])


async def test_an_export_comes_in_pieces_and_moves_to_another_service(serve: Serve, tmp_path: Path) -> None:
    """More than what is read at once, so that it goes out while the rest is read."""
    service = await serve(STREAM_DELAY="0")
    words = "lorem ipsum " * 4_000
    for number in range(8):
        body = {"message": f"{number} {words}", "user_id": "ann", "session_id": "anns", "stream": False}
        assert (await service.client.post("/chat", json=body)).status_code == 200
    async with service.client.stream("GET", "/users/ann/export") as response:
        assert "content-length" not in response.headers
        text = "".join([piece async for piece in response.aiter_text()])
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[-1] == {"end": {"lines": len(lines)}}
    assert len(text) > 1_000_000
    (tmp_path / "anns").write_text(text)
    status, said = await transfer("import", str(tmp_path / "anns"), DATABASE_URL=f"sqlite:///{tmp_path}/other.db")
    assert (status, "16 messages" in said) == (0, True)
