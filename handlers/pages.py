"""The pages: the playground and the API's documentation. Nothing on them comes from anywhere else."""

from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from chat.errors import ChatError
from handlers.headers import PAGE, PLAYGROUND

_OURS = Path(__file__).parent / "static"

_SWAGGER_FILES = {"swagger-ui.css", "swagger-ui-bundle.js"}


async def playground(_: Request) -> Response:
    return FileResponse(_OURS / "playground.html", headers=PLAYGROUND)


async def docs(_: Request) -> Response:
    return FileResponse(_OURS / "docs.html", headers=PAGE)


async def static(request: Request) -> Response:
    """One of our files, or of Swagger UI's; the names are compared, never joined to a path unseen."""
    name = request.path_params["name"]
    file = {path.name: path for path in (*_OURS.iterdir(), *_swagger())}.get(name)
    if file is None:
        raise ChatError("not_found", "There is nothing at this address.")
    response = FileResponse(file, headers=PAGE, stat_result=file.stat())
    if response.headers["etag"] in request.headers.get("if-none-match", ""):  # Starlette does this in StaticFiles only
        return Response(status_code=304, headers={**PAGE, "ETag": response.headers["etag"]})
    return response


def _swagger() -> list[Path]:
    spec = find_spec("swagger_ui")  # located, not imported: only its files are wanted
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "static"
    return [folder / name for name in sorted(_SWAGGER_FILES)]
