"""Users: all that is theirs, to take along or to delete, and who they are where nobody knows them.

A page that knows nobody gets an anonymous identity, which nobody else can claim.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Message, Send

from chat.errors import ChatError
from chat.ids import anonymous_user
from handlers.context import engine_of, service_of
from handlers.errors import BrokenOffError
from handlers.guards import bearer_of
from handlers.identity import identity_of
from handlers.limits import client_of, limits_of, take_seat
from handlers.sealing import seals_of
from handlers.views import AnonymousView


async def create_anonymous(request: Request) -> Response:
    """With a token that is still good: another for the same user."""
    if not service_of(request).anonymous:
        raise ChatError("not_found", "There is nothing at this address.")
    user = await _known(request) if "authorization" in request.headers else _new(request)
    token, until = await seals_of(request).token_of(request.scope, user)
    view: AnonymousView = {"user_id": user, "token": token, "expires_at": until * 1000}
    return JSONResponse(view, 201, {"Cache-Control": "no-store"})


def _new(request: Request) -> str:
    limits_of(request).stranger(request.scope)
    return anonymous_user()


async def _known(request: Request) -> str:
    try:
        return await seals_of(request).user_of(request.scope, bearer_of(request.scope))
    except ChatError as error:
        raise limits_of(request).mistaken(request.scope, error) if error.code == "unauthorized" else error from None


async def delete_user(request: Request) -> Response:
    budgets, client = limits_of(request).budgets, client_of(request)
    used = await budgets.used(client, request.app.state.engine) if client is not None else 0
    await engine_of(request).delete_user(_user_of(request))
    if client is not None:
        budgets.keep(client, used)
    return Response(status_code=204)


async def export_user(request: Request) -> Response:
    service = service_of(request)
    lines = await engine_of(request).store.export_user(_user_of(request), service.version)
    headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="parley.jsonl"'}
    if request.method == "HEAD":
        return Response(headers=headers, media_type=Download.media_type)
    take_seat(request)
    return Download(_joined(lines), service.pulse.patience, headers)


async def _joined(pieces: AsyncIterator[Sequence[bytes]]) -> AsyncIterator[bytes]:
    try:
        async for lines in pieces:
            yield b"".join(lines)
    except ChatError as error:
        raise BrokenOffError(error.code) from error


class Download(StreamingResponse):
    """Lines as they are read. A reader who takes none for ``patience`` seconds is dropped."""

    media_type = "application/jsonl"

    def __init__(self, pieces: AsyncIterator[bytes], patience: float, headers: dict[str, str]) -> None:
        super().__init__(pieces, headers=headers)
        self._patience = patience

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._patience):
                    await send(message)
            except TimeoutError:
                raise SendTimeoutError from None

        await super().stream_response(send_in_time)


def _user_of(request: Request) -> str:
    """The user that is named, if who asks may name any.

    Raises:
        ChatError: ``forbidden``: a key that is for all users, and says neither whose request it is nor is an admin's.
    """
    identity = identity_of(request)
    if identity.user is None and not identity.admin:
        message = "Say in X-User-Id whose request it is, or ask with an admin key."
        raise ChatError("forbidden", message)
    user: str = request.path_params["user_id"]
    return user
