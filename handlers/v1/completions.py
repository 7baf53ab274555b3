"""``/v1/chat/completions``: a run, in the shape that every OpenAI client understands."""

from starlette.requests import Request
from starlette.responses import Response

from chat.commands import Claim, Leaf, Matching, NewRun
from chat.ids import anonymous_user, new_id
from chat.sessions import NewSession
from chat.terms import Terms
from handlers.answers import answer, claim_of, replayed
from handlers.bodies import Reply, body_of
from handlers.chat import within_limit
from handlers.documents import check_collection, meant_by
from handlers.formats.completions import CompletionChunks
from handlers.models import chosen_model
from handlers.templates import prompt_for
from handlers.terms import terms_of
from handlers.v1.bodies import BESIDE, DELIVERY, OPTIONS, CompletionBody, session_in_header
from handlers.v1.tools import tools_of
from handlers.v1.turns import instructions_of, turns_of
from handlers.v1.views import completion_view


async def create_completion(request: Request) -> Response:
    """Without a session, each request is one of its own: the client brings the whole conversation."""
    body = await body_of(request, CompletionBody)
    session_id = _session_named(request, body)
    meant = body.model_dump(exclude=DELIVERY | BESIDE)
    claim = claim_of(request, body.request_id, meant, session_id, *meant_by(body.collection))
    new = await replayed(request, claim) or await _said(request, body, session_id, claim)
    usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    encoder = CompletionChunks({tool.function.name for tool in body.tools or ()}, usage=usage)
    reply = Reply(stream=bool(body.stream), on_disconnect=body.on_disconnect)
    return await answer(request, new, reply, encoder=encoder, shape=completion_view)


async def _said(request: Request, body: CompletionBody, session_id: str | None, claim: Claim | None) -> NewRun:
    turns = within_limit(request, list(turns_of(body.messages)))
    await check_collection(request, body.collection, session_id, body.user)
    return NewRun(
        id=new_id("run"),
        session=NewSession(session_id or new_id("ses"), body.user or anonymous_user(), collection=body.collection),
        user_id=body.user,
        turns=turns,
        model=chosen_model(request, body.model),
        place=Leaf() if len(turns) == 1 else Matching(),
        terms=await _terms(request, body, session_id),
        on_busy=body.on_busy,
        claim=claim,
    )


def _session_named(request: Request, body: CompletionBody) -> str | None:
    return session_in_header(request) or (body.metadata.session_id if body.metadata else None)


async def _terms(request: Request, body: CompletionBody, session_id: str | None) -> Terms:
    tools = tools_of([tool.function for tool in body.tools or ()])
    options = body.model_dump(include=OPTIONS, exclude_none=True)
    prompt = await prompt_for(request, None, {}, session_id)
    return terms_of(request, prompt, instructions_of(body.messages), tools, options)
