"""OpenAI's own clients, unmodified, and a service whose model says what a test wants."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent

from tests.live.conftest import Serve
from tests.live.service import PATIENCE, ROOT, Service
from tests.programs import node_with
from tests.upstream import Reply, Upstream, calling, chunk

SCRIPT = Path(__file__).parent / "openai.mjs"

LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks at a city's sky.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}

TOOL: Any = {"type": "function", "strict": True, **LOOK["function"]}  # type: ignore[dict-item]
"""The same, as responses have it."""


@asynccontextmanager
async def talking(
    serve: Serve, *replies: Reply, **settings: str
) -> AsyncIterator[tuple[AsyncOpenAI, Service, Upstream]]:
    """The Python client, the service, and the model's server, which gives out these replies."""
    async with Upstream(*replies) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", MODEL_RETRIES="0", **settings)
        async with python_client(service) as client:
            yield client, service, upstream


def python_client(service: Service) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any", timeout=PATIENCE, max_retries=0)


async def asked(client: AsyncOpenAI, said: Any, **more: Any) -> Response:
    """The whole response."""
    response: Response = await client.responses.create(input=said, **more)
    return response


async def events_of(client: AsyncOpenAI, said: Any, take: int | None = None, **more: Any) -> list[ResponseStreamEvent]:
    """The events of a new response, or the first of them."""
    stream = await client.responses.create(input=said, stream=True, **more)
    return await taken(stream, take)


async def rest_of(
    client: AsyncOpenAI, response_id: str, number: int, take: int | None = None
) -> list[ResponseStreamEvent]:
    """The events behind this one, or the first of them."""
    return await taken(await client.responses.retrieve(response_id, stream=True, starting_after=number), take)


async def taken(stream: Any, most: int | None) -> list[ResponseStreamEvent]:
    events: list[ResponseStreamEvent] = []
    async with stream:
        async for event in stream:
            events.append(event)
            if len(events) == most:
                break
    return events


def text_of(events: list[Any]) -> str:
    return "".join([event.delta for event in events if event.type == "response.output_text.delta"])


def id_of(events: list[Any]) -> str:
    return str(events[0].response.id)


class NpmError(Exception):
    """What the npm client raised, and the events that came before."""

    def __init__(self, error: dict[str, Any], events: list[Any]) -> None:
        super().__init__(error)
        self.error = error
        self.events = events


class NpmClient:
    """The npm package in a Node of its own, which calls what it is told to."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self, path: str, *args: object, take: int | None = None, final: str | None = None) -> Any:
        """Call ``path``, such as ``responses.create``: what it returns, or the first ``take`` events of a stream.

        ``final`` is a method of the stream's that waits for its end.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"path": path.split("."), "args": args, "take": take, "final": final})
        self._process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            told = json.loads(await self._process.stdout.readline())
        if "error" in told:
            raise NpmError(told["error"], told["events"])
        return told["value"] if "value" in told else told["events"]


@asynccontextmanager
async def npm_client(service: Service) -> AsyncIterator[NpmClient]:
    node = node_with("openai")
    process = await asyncio.create_subprocess_exec(
        node, str(SCRIPT), f"{service.url}/v1", cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    try:
        yield NpmClient(process)
    finally:
        process.kill()
        await process.wait()


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def looking(call_id: str, city: str) -> Reply:
    """The model looks at a city's sky."""
    return calling(call_id, "look", {"city": city}, chunk("I look. "))


def calling_ours() -> Reply:
    """The model calls a tool of ``examples.town_hall``."""
    return calling("call_1", "submit_feedback", {"feedback": "Lockers", "topic": "Ginza"})
