"""EventSource, the client that every browser has: the npm package drives itself."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from tests.live.service import PATIENCE, ROOT

SCRIPT = Path(__file__).parent / "eventsource.mjs"


@dataclass(frozen=True, slots=True)
class Told:
    """What a page hears of one EventSource."""

    source: int
    name: str
    data: str | None = None
    id: str | None = None
    code: int | None = None


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
