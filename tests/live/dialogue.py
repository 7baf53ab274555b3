"""A service and the scripted upstream that it asks."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.live.checks import descriptors, until
from tests.live.service import PATIENCE, Frame, Service
from tests.upstream import Reply, Upstream

KEY = "sk-canary-3f9c1b7e"
PROMPT = "What becomes of an answer that breaks off? canary-of-the-prompt"

COMPLAINTS = ("Traceback", "was never retrieved", "was never awaited", "Unclosed")
"""What a log says when something was forgotten."""


@asynccontextmanager
async def dialogue(folder: Path, *replies: Reply, **settings: str) -> AsyncIterator[tuple[Service, Upstream]]:
    """In the end the service has let go of all that it had opened, and nothing keeps it from stopping."""
    async with AsyncExitStack() as scripted:
        upstream = await scripted.enter_async_context(Upstream(*replies))
        model = {"BASE_URL": upstream.base_url, "OPENAI_API_KEY": KEY, "MODEL_NAME": "scripted"}
        # Whoever still generates holds a shutdown up for as long as this: far beyond the tests' patience.
        async with Service(folder, **model | {"DRAIN_SECONDS": "600", "LOG_LEVEL": "DEBUG"} | settings) as service:
            before = descriptors(service) - 1  # the connection over which we asked whether it is ready
            yield service, upstream
            await service.client.aclose()
            await scripted.aclose()  # and with it the connections that wait, idle, for another request
            await until(lambda: descriptors(service) <= before)
            await service.terminate()
            said = service.log.read_text()
            assert not [complaint for complaint in COMPLAINTS if complaint in said], said


async def ask(
    service: Service, message: str = PROMPT, *, gates: Iterable[asyncio.Event] = (), **body: object
) -> tuple[str, list[Frame]]:
    """Say something; the run that answers, and its stream to the end. With every event a gate is opened."""
    closed = iter(gates)
    everything: list[Frame] = []
    async with asyncio.timeout(PATIENCE * 2):
        async with service.stream("POST", "/chat", json={"message": message, **body}) as received:
            async for frame in received:
                everything.append(frame)
                if frame.id is not None and frame.seq > 0 and (gate := next(closed, None)) is not None:
                    gate.set()
    return run_of(everything[0]), everything


def run_of(frame: Frame) -> str:
    assert frame.id is not None
    return frame.id.rpartition(".")[0]


@asynccontextmanager
async def following(service: Service, **body: object) -> AsyncIterator[tuple[AsyncIterator[Frame], str, int]]:
    """A stream of which the first text has been shown; its run, and where its reader stands."""
    async with service.stream("POST", "/chat", json={"message": PROMPT, **body}) as received:
        async with asyncio.timeout(PATIENCE):
            frame = await anext(received)
            while frame.data is None:
                frame = await anext(received)
        yield received, run_of(frame), frame.seq


async def ends_in_trouble(received: AsyncIterator[Frame], code: str) -> None:
    """The rest of the stream says, without an id, that it cannot go on now, and when to come back."""
    async with asyncio.timeout(PATIENCE * 2):
        trouble, again = [frame async for frame in received]
    assert (trouble.event, trouble.id) == ("stream.error", None)
    assert json.loads(trouble.data or "")["code"] == code
    assert again.retry
