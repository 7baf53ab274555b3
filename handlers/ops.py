"""The service itself: what it is, whether it lives, whether it is ready for work."""

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from chat.errors import ChatError
from handlers.context import engine_of, service_of
from handlers.metrics import MEDIA_TYPE
from handlers.views import HealthView, ReadyView, ServiceView

NO_STORE = {"Cache-Control": "no-store"}


async def root(request: Request) -> Response:
    """What a program sees; a browser is sent to the page."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/playground", 303, NO_STORE | {"Vary": "Accept"})
    service = service_of(request)
    endpoints: dict[str, list[str]] = {}
    for route in request.app.routes:
        if isinstance(route, Route):
            endpoints.setdefault(route.path, []).extend(sorted((route.methods or set()) - {"HEAD"}))
    view: ServiceView = {
        "status": "ok",
        "service": service.name,
        "version": service.version,
        "titles": service.titles,
        "endpoints": endpoints,
    }
    return JSONResponse(view)


async def health(request: Request) -> Response:
    """The process lives. Says nothing about its database: a restart would not cure that."""
    service = service_of(request)
    view: HealthView = {"status": "healthy", "service": service.name, "version": service.version}
    return JSONResponse(view, headers=NO_STORE)


async def metrics(request: Request) -> Response:
    """This process's numbers, for Prometheus."""
    numbers = service_of(request).metrics
    if numbers is None:
        raise ChatError("not_found", "There is nothing at this address.")
    return Response(numbers.text(), headers=NO_STORE | {"Content-Type": MEDIA_TYPE})


async def ready(request: Request) -> Response:
    """Work may be sent here: the database answers, and the process is not shutting down."""
    engine = engine_of(request)
    if engine.draining:
        raise ChatError("draining", "This process is shutting down.", retry_after=1)
    await engine.store.check()
    view: ReadyView = {"status": "ready"}
    return JSONResponse(view, headers=NO_STORE)
