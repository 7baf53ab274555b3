"""``POST /chatkit``. The package is imported by the first request, in a thread: the start does not wait for it."""

import asyncio
from importlib import import_module

from starlette.requests import Request
from starlette.responses import Response

from chat.errors import ChatError
from handlers.bodies import body_of, query_of
from handlers.chatkit.bodies import ChatKitBody, ChatKitQuery


async def post_chatkit(request: Request) -> Response:
    query, body = query_of(request, ChatKitQuery), await body_of(request, ChatKitBody)
    await asyncio.to_thread(_load)
    from handlers.chatkit.operations import operate

    return await operate(request, query, body)


def _load() -> None:
    """Takes half a second, in which the loop serves others.

    Raises:
        ChatError: ``chatkit_missing``.
    """
    try:
        import_module("handlers.chatkit.operations")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "chatkit":
            raise
        message = "The package openai-chatkit is missing. Install it: ./scripts/install.sh requirements-chatkit.txt"
        raise ChatError("chatkit_missing", message) from None
