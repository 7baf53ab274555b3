"""The API's description, OpenAPI 3.1: made from the routes, the bodies, the views and the encoders themselves."""

import asyncio
import json

from starlette.requests import Request
from starlette.responses import Response

from handlers.context import service_of
from handlers.openapi.document import describe


async def document(request: Request) -> Response:
    """Made when it is first asked for, and once: the start does not wait for it."""
    state = request.app.state
    if not hasattr(state, "openapi"):
        service = service_of(request)
        # Some 40 ms, and in the loop every stream would stand still for them.
        made = await asyncio.to_thread(describe, request.app.routes, service.name, service.version)
        state.openapi = json.dumps(made).encode()
    return Response(state.openapi, media_type="application/json", headers={"Cache-Control": "no-cache"})
