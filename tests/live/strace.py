"""A process under strace, which sees its calls of the kernel, and lets some of them fail."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.live.service import PATIENCE
from tests.programs import program


@asynccontextmanager
async def traced(pid: int, trace: Path, *options: str) -> AsyncIterator[Path]:
    """The process, its threads and what it forks from now on; the file that is written."""
    process = await asyncio.create_subprocess_exec(
        program("strace"), "-f", "-yy", "-s", "1000", "-o", str(trace), *attached(pid), *options,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for _ in attached(pid)[::2]:
            said = await asyncio.wait_for(process.stderr.readline(), PATIENCE)
            if b"attached" not in said:
                pytest.skip(f"strace cannot attach: {said.decode().strip()}")
        yield trace
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # lets go of the process, and ends
        await process.communicate()


def attached(pid: int) -> list[str]:
    """strace's options that name the process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [option for one in (str(pid), *children) for option in ("-p", one)]
