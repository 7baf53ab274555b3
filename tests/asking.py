"""A model asked over a real socket, and what came of it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from chat.errors import ModelError
from chat.model import OpenAIModel
from chat.ports import ChatModel, ModelRequest, Part
from chat.providers import NO_PLACEHOLDERS, Placeholders
from chat.sessions import Turn
from tests.upstream import Reply, Upstream

KEY = "sk-secret"
HELLO = ModelRequest([Turn("user", "secret prompt")])

# An error's code, whether the client may ask again, and whether the engine may, as long as nothing was shown.
Kind = tuple[str, bool, bool]
UNREACHABLE = ("upstream_unreachable", True, True)
UNAVAILABLE = ("upstream_unavailable", True, True)
RATE_LIMITED = ("upstream_rate_limited", True, True)
TIMEOUT = ("upstream_timeout", True, True)
INCOMPLETE = ("upstream_incomplete", True, True)
INVALID = ("upstream_invalid", True, False)
REPORTED = ("upstream_error", True, False)
AUTH = ("upstream_auth", False, False)
REJECTED = ("upstream_rejected", False, False)


@asynccontextmanager
async def model_at(
    base_url: str,
    *,
    api_key: str = KEY,
    connect: float = 5,
    silence: float = 5,
    first: float | None = None,
    placeholders: Placeholders = NO_PLACEHOLDERS,
) -> AsyncGenerator[OpenAIModel, None]:
    model = OpenAIModel(
        name="gpt-test",
        base_url=base_url,
        api_key=api_key,
        connect_timeout=connect,
        silence_timeout=silence,
        first_timeout=first,
        placeholders=placeholders,
    )
    try:
        yield model
    finally:
        await model.close()


@asynccontextmanager
async def playing(*replies: Reply, **options: Any) -> AsyncGenerator[tuple[Upstream, OpenAIModel], None]:
    """A scripted upstream and a model that asks it; ``options`` are those of :func:`model_at`."""
    async with Upstream(*replies) as upstream, model_at(upstream.base_url, **options) as model:
        yield upstream, model


async def ask(model: ChatModel, request: ModelRequest = HELLO) -> tuple[list[Part], ModelError | None]:
    """All parts of an answer, by both ways, and why it failed, if it did."""
    parts: list[Part] = []

    def hear(read: Sequence[Part]) -> bool:
        assert read
        parts.extend(read)
        return True

    try:
        async with aclosing(model.stream(replace(request, hear=hear))) as reads:
            async for read in reads:
                assert read
                parts.extend(read)
    except ModelError as error:
        return parts, error
    return parts, None


def kind(error: ModelError | None) -> Kind:
    assert error is not None
    return error.code, error.retryable, error.transient
