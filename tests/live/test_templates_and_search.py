"""Prompts that the operator wrote, and a search in what became of them, on a service that dies in between."""

import asyncio
import os
import sys
from pathlib import Path

from tests.live.checks import check_run
from tests.live.conftest import Serve
from tests.live.dialogue import ask, dialogue
from tests.live.service import PATIENCE, ROOT
from tests.upstream import Upstream, completion


async def system_of(upstream: Upstream, number: int) -> list[str]:
    """What the model was told before the conversation, in the request of this number."""
    messages = (await upstream.request(number)).body["messages"]
    return [turn["content"] for turn in messages if turn["role"] == "system"]


async def test_prompt_is_kept_over_a_crash_and_what_was_said_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "expert.txt").write_text("You are a {{ role }}.\n")
    settings = {"TEMPLATES_DIR": str(folder), "SYSTEM_PROMPT": "Be brief."}
    async with dialogue(tmp_path, *[completion("Turn the valve clockwise.")] * 3, **settings) as (service, upstream):
        plumber = {"template": "expert", "variables": {"role": "plumber"}}
        body = {"session_id": "one", "user_id": "ann", **plumber}
        assert (await service.client.post("/sessions", json=body)).status_code == 201
        run_id, _ = await ask(service, "My pipe is leaking", session_id="one")
        await check_run(service, run_id)
        assert await system_of(upstream, 0) == ["Be brief.", "You are a plumber."]

        (folder / "expert.txt").write_text("You were a {{ role }}.\n")
        await service.restart()
        retried = await service.client.post(f"/runs/{run_id}/retry", json={"stream": False})
        assert retried.status_code == 200
        assert await system_of(upstream, 1) == ["Be brief.", "You are a plumber."]
        await ask(service, "And now?", session_id="one")
        assert await system_of(upstream, 2) == ["Be brief.", "You were a plumber."]

        found = (await service.client.get("/search", params={"q": "LEAK", "user_id": "ann"})).json()["results"]
        assert [(hit["session_id"], hit["snippet"]) for hit in found] == [("one", "My pipe is leaking")]
        [match] = found[0]["matches"]
        assert found[0]["snippet"][match["start"] : match["end"]] == "leaking"
        assert len((await service.client.get("/search", params={"q": "valve"})).json()["results"]) == 3
        assert (await service.client.get("/search", params={"q": "valve", "user_id": "bob"})).json()["results"] == []
        await service.client.delete("/sessions/one")
        assert (await service.client.get("/search", params={"q": "valve"})).json()["results"] == []


async def test_workers_find_what_the_others_wrote(serve: Serve) -> None:
    service = await serve(WORKERS="2", STREAM_DELAY="0")
    for number in range(10):
        await service.client.post("/chat", json={"message": f"tea {number}", "stream": False})
        found = (await service.client.get("/search", params={"q": "tea", "limit": 50})).json()["results"]
        assert len(found) == 2 * (number + 1)  # echo says it, too


async def test_broken_template_ends_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.txt").write_text("{% if %}")
    for workers in ("1", "2"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "server.py"), "--port", "0", "--workers", workers,
            env={"PATH": os.environ["PATH"], "TEMPLATES_DIR": str(tmp_path)}, cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 1
        assert errors.decode().startswith("Wrong setting: TEMPLATES_DIR: broken.txt, line 1: ")
        assert errors.count(b"\n") == 1
