"""Models: which there are, and which one a request is for."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.errors import ChatError
from handlers.context import router_of
from handlers.streams import cursor_of
from handlers.views import ModelsView, model_view


async def list_models(request: Request) -> Response:
    view: ModelsView = {"models": [model_view(choice) for choice in router_of(request).choices()]}
    return JSONResponse(view, headers={"Cache-Control": "no-store"})


def chosen_model(request: Request, name: str | None) -> str:
    """The model that is asked for, or the default. Who comes back to a run has asked before, and is not asked again.

    Raises:
        ChatError: ``model_not_allowed``.
    """
    router = router_of(request)
    if name is not None and not router.offers(name) and cursor_of(request) is None:
        raise ChatError("model_not_allowed", "This service does not offer that model; GET /models lists those it does.")
    return name or router.name


def named(name: str | None) -> tuple[str, ...]:
    """What a given model adds to the meaning of a request: nothing if none is, as before there was a choice."""
    return () if name is None else (name,)
