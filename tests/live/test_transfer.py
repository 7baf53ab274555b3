"""`python server.py export` and `import`, as they are typed: a service moves from SQLite to PostgreSQL."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tests.live.checks import check_run
from tests.live.conftest import Serve
from tests.live.service import ROOT, text_of
from tests.patience import PATIENCE, soon
from tests.postgres import rows
from tests.upstream import Upstream, chunk, done, finish, reply


async def command(*arguments: str, **settings: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, ROOT / "server.py", *arguments, env=settings, stderr=PIPE, cwd=settings.pop("cwd", ROOT)
    )


async def transfer(*arguments: str, **settings: str) -> tuple[int | None, str]:
    """The exit status, and what was said."""
    process = await command(*arguments, **settings)
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE * 3)
    return process.returncode, said.decode()


async def test_answer_begins_in_sqlite_and_ends_in_postgres(serve: Serve, url: str, tmp_path: Path) -> None:
    half, rest = reply(chunk("It begins "), asyncio.Event()), reply(chunk("and ends."), finish(), done())
    async with Upstream(reply(chunk("All of it."), finish(), done()), half, rest) as upstream:
        model = {"BASE_URL": upstream.base_url, "OPENAI_API_KEY": "none"}
        old = await serve(**model)
        before = f"sqlite:///{old.database}"
        first = await old.begin("Say it.", session_id="done")
        await check_run(old, first)
        whole = await old.follow(first)
        run_id = await old.begin("And again.")
        async with old.stream("GET", f"/runs/{run_id}/events") as watched:
            seen = [await soon(anext(watched)) for _ in range(2)]
            status, said = await transfer("export", str(tmp_path / "running"), DATABASE_URL=before)
            assert (status, said.count("2 sessions, 3 messages, 2 runs")) == (0, 1), said
            await old.kill()
        status, said = await transfer("export", str(tmp_path / "all"), "--database-url", before, DATABASE_URL=url)
        assert status == 0, said
        status, said = await transfer("import", str(tmp_path / "all"), DATABASE_URL=url)
        assert status == 0, said

        new = await serve(DATABASE_URL=url, **model)
        seen += await new.follow(run_id, after=1)
        assert text_of(seen) == "It begins and ends."
        assert (await check_run(new, run_id))["status"] == "completed"
        assert await new.follow(first) == whole
        assert await new.answer(first) == "All of it."


async def test_import_that_is_stopped_leaves_nothing(url: str, tmp_path: Path) -> None:
    """It reads from a pipe, so that it stands in the middle for as long as it has to."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    importing = await command("import", str(pipe), DATABASE_URL=url)
    try:
        with await soon(asyncio.to_thread(pipe.open, "wb", buffering=0)) as into:
            into.write(b'{"parley":{"format":1,"version":"0"}}\n')
            for number in range(200):
                into.write(
                    b'{"record":{"id":"%d","kind":"k","session_id":"s","user_id":"u","run_id":"r","data":"{}",'
                    b'"created_at":1}}\n' % number
                )
            async with asyncio.timeout(PATIENCE):
                while not await rows(
                    url, "SELECT 1 FROM pg_locks WHERE relation = 'records'::regclass AND mode LIKE 'Row%'"
                ):
                    pass
            importing.send_signal(signal.SIGINT)
            assert await soon(importing.wait()) == -signal.SIGINT
    finally:
        if importing.returncode is None:
            importing.kill()
            await importing.wait()
    assert await rows(url, "SELECT count(*) FROM records") == [(0,)]


@pytest.mark.parametrize("arguments", [["export"], ["import"], ["export", "one", "two"], ["import", "--nothing", "x"]])
async def test_wrong_arguments_end_with_2(arguments: list[str]) -> None:
    status, said = await transfer(*arguments)
    assert status == 2
    assert said.startswith(f"usage: server.py {arguments[0]}")


async def test_wrong_setting_is_said(tmp_path: Path) -> None:
    status, said = await transfer("export", str(tmp_path / "file"), DATABASE_URL="mysql://db/parley")
    assert status == 1
    assert said.startswith("Wrong setting: DATABASE_URL: use sqlite:///")
    assert list(tmp_path.iterdir()) == []
