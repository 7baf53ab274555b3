"""What happens around every request: its id, its line in the log, and the last net for our mistakes."""

import logging
import time

from sse_starlette.sse import SendTimeoutError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat.errors import ChatError
from chat.ids import ID, new_id
from handlers.context import keep_wire, set_request_id
from handlers.errors import internal_error, problem

_LOGGED = {"x-session-id": "session_id", "x-run-id": "run_id"}

logger = logging.getLogger("parley.access")


class WireMiddleware:
    """The outermost: keeps the server's own ``send`` at hand for the streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keep_wire(scope, send)
        await self._app(scope, receive, send)


class RequestMiddleware:
    """Pure ASGI: Starlette's BaseHTTPMiddleware would hide a client's disconnect from the streams.

    The log's line names the path without its query: ``GET /chat?message=`` would put what people say there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if ID.fullmatch(given) else new_id("req")
        set_request_id(request_id)
        began = time.perf_counter()
        about: dict[str, object] = {"method": scope["method"], "path": scope["path"]}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                about["status"] = message["status"]
                about.update({name: headers[header] for header, name in _LOGGED.items() if header in headers})
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except SendTimeoutError:
            logger.info("a reader that stalled was dropped", extra=about)
        except Exception:
            logger.exception("unforeseen", extra=about)
            if "status" not in about:
                await internal_error(scope["path"])(scope, receive, send_with_id)
        finally:
            logger.info("request", extra=about | {"seconds": round(time.perf_counter() - began, 4)})


class BodyLimitMiddleware:
    """Refuses bodies of more than ``limit`` bytes, whether they say their length or not.

    Starlette's own answers those that say it in plain text, whatever the exception handlers make of it.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def receive_up_to_limit() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise _too_large()
            return message

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif int(Headers(scope=scope).get("content-length", 0)) > self._limit:
            await problem(_too_large(), scope["path"])(scope, receive, send)
        else:
            await self._app(scope, receive_up_to_limit, send)


def _too_large() -> ChatError:
    return ChatError("body_too_large", "The request's body is over this service's limit.")
