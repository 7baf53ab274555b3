"""The API's description, OpenAPI 3.1: made from the routes, the bodies, the views and the encoders themselves."""

import asyncio
import json
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from handlers.context import Service, service_of


async def document(request: Request) -> Response:
    """Made when it is first asked for, and once: the start does not wait for it."""
    state = request.app.state
    if not hasattr(state, "openapi"):
        service = service_of(request)
        # Some 40 ms, and in the loop every stream would stand still for them.
        state.openapi = await asyncio.to_thread(_made, request.app.routes, service)
    return Response(state.openapi, media_type="application/json", headers={"Cache-Control": "no-cache"})


def _made(routes: Iterable[BaseRoute], service: Service) -> bytes:
    from handlers.openapi.document import describe  # with tables and samples that nothing else needs

    return json.dumps(describe(routes, service.name, service.version, chaos=service.chaos)).encode()
