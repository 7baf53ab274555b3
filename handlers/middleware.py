"""What happens around every request: its id, its line in the log, and the last net for our mistakes."""

import logging
import time
from collections.abc import Awaitable
from functools import partial

from sse_starlette.sse import SendTimeoutError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat.errors import ChatError
from chat.ids import ID, new_id
from handlers.context import count_refusal, set_request_id
from handlers.errors import BrokenOffError, internal_error, problem
from handlers.identity import NOBODY, PLACE, Guard, shows_something
from handlers.limits import Limits
from handlers.uploads import brings_files
from handlers.wire import Rest, wire_of

_LOGGED = {"x-session-id": "session_id", "x-run-id": "run_id"}

PUBLIC = {"/", "/health", "/chat/health", "/ready", "/docs", "/openapi.json", "/playground", "/users/anonymous"}
"""What anybody may ask for; all else needs somebody. Besides these there are the pages' files."""

FILES = "/static/"

logger = logging.getLogger("parley.access")


class RequestMiddleware:
    """Pure ASGI: Starlette's BaseHTTPMiddleware would hide a client's disconnect from the streams.

    The log's line names the path without its query: ``GET /chat?message=`` would put what people say there. That of a
    stream is written at the stream's end, which is outside of here.
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
        access = _Access({"method": scope["method"], "path": scope["path"]})
        about, wire = access.about, wire_of(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                about["status"] = message["status"]
                about.update({name: headers[header] for header, name in _LOGGED.items() if header in headers})
            await send(message)

        try:
            if not await access.watch(self._app(scope, receive, send_with_id)) and "status" not in about:
                await internal_error(scope["path"])(scope, receive, send_with_id)
        finally:
            if wire.rest is None:
                access.end()
            else:
                wire.rest = partial(access.see_through, wire.rest)


class _Access:
    """A request's line in the log: what it is ``about``, how long it took, and what went wrong."""

    __slots__ = ("_began", "about")

    def __init__(self, about: dict[str, object]) -> None:
        self.about = about
        self._began = time.perf_counter()

    async def watch(self, work: Awaitable[None]) -> bool:
        """Await it; False if it made a mistake, which is logged."""
        try:
            await work
        except SendTimeoutError:
            logger.info("a reader that stalled was dropped", extra=self.about)
        except BrokenOffError as error:
            logger.warning("what was being sent broke off: %s", error, extra=self.about)
        except ClientDisconnect:
            logger.info("a client left, or was shown out, before its request was there", extra=self.about)
        except Exception:
            logger.exception("unforeseen", extra=self.about)
            return False
        return True

    async def see_through(self, rest: Rest, receive: Receive) -> None:
        try:
            await self.watch(rest(receive))
        finally:
            self.end()

    def end(self) -> None:
        logger.info("request", extra=self.about | {"seconds": round(time.perf_counter() - self._began, 4)})


class BodyLimitMiddleware:
    """Refuses bodies of more than ``limit`` bytes, those that bring files of more than ``uploads``.

    Whether they say their length or not.

    Starlette's own answers those that say it in plain text, whatever the exception handlers make of it.
    """

    def __init__(self, app: ASGIApp, limit: int, uploads: int) -> None:
        self._app = app
        self._limit = limit
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._uploads if brings_files(scope) else self._limit
        size = 0

        async def receive_up_to_limit() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large()
            return message

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif int(Headers(scope=scope).get("content-length", 0)) > limit:
            await problem(_too_large(), scope["path"])(scope, receive, send)
        else:
            await self._app(scope, receive_up_to_limit, send)


def _too_large() -> ChatError:
    return ChatError("body_too_large", "The request's body is over this service's limit.")


class IdentityMiddleware:
    """Lets in whom the guard knows, and everybody to what is public."""

    def __init__(self, app: ASGIApp, guard: Guard, limits: Limits) -> None:
        self._app = app
        self._guard = guard
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                # Nobody deletes what is public: `anonymous` may be somebody's id.
                public = is_public(scope["path"]) and scope["method"] != "DELETE"
                scope[PLACE] = NOBODY if public else await self._guard.identify(scope)
            except ChatError as error:
                wrong = error.code == "unauthorized" and shows_something(scope)
                said = self._limits.mistaken(scope, error) if wrong else error
                count_refusal(scope, said.code)
                await problem(said, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_public(path: str) -> bool:
    return path in PUBLIC or path.startswith(FILES)
