"""The operator's prompt templates: which there are, and what they say to a run."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.errors import ChatError
from chat.prompts import Variables, prompt_of
from handlers.context import engine_of, service_of
from handlers.listings import TemplatesView, template_view
from handlers.streams import cursor_of


async def list_templates(request: Request) -> Response:
    templates = service_of(request).templates
    view: TemplatesView = {"templates": [template_view(templates[name]) for name in sorted(templates)]}
    return JSONResponse(view)


async def prompt_for(
    request: Request, template: str | None, variables: Variables, session_id: str | None
) -> str | None:
    """What this template says, or the session's if none is named; None without either.

    A client that comes back to its run is not held up by a template that has been changed meanwhile: the run has the
    text that it began with.

    Raises:
        ChatError: ``template_unknown``; ``invalid_request`` for variables that do not fit; ``invalid_cursor``.
    """
    if cursor_of(request) is not None:
        return None
    prompt = named_prompt(request, template, variables)
    if prompt is None and service_of(request).templates and session_id is not None:  # else nobody has to look
        session = await engine_of(request).store.session(session_id)
        if session is not None:
            return named_prompt(request, session.template, session.variables)
    return prompt


def named_prompt(request: Request, template: str | None, variables: Variables) -> str | None:
    """What this template says, None if none is named; raises as :func:`prompt_for` does."""
    if template is not None:
        return prompt_of(service_of(request).templates, template, variables)
    if variables:
        raise ChatError("invalid_request", "variables: there is no template that they are for.")
    return None
