"""``/v1/models``: the same models as ``/models``, as OpenAI lists them."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.errors import ChatError
from handlers.context import router_of
from handlers.v1.views import OpenAIModelsView, openai_model_view


async def list_models(request: Request) -> Response:
    view: OpenAIModelsView = {
        "object": "list",
        "data": [openai_model_view(choice) for choice in router_of(request).choices()],
    }
    return JSONResponse(view, headers={"Cache-Control": "no-store"})


async def get_model(request: Request) -> Response:
    for choice in router_of(request).choices():
        if choice.id == request.path_params["model"]:
            return JSONResponse(openai_model_view(choice), headers={"Cache-Control": "no-store"})
    raise ChatError("not_found", "This service does not offer that model.")
