"""A message comes in: ``/chat`` and ``/api/chat``."""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from chat.commands import Leaf, Matching, NewRun, Under
from chat.errors import ChatError
from chat.ids import anonymous_user, new_id
from chat.prompts import Variables
from chat.sessions import NewSession, Turn
from chat.terms import Terms
from handlers.answers import answer, claim_of, replayed
from handlers.bodies import ChatBody, ChatQuery, MessagesBody, body_of, query_of
from handlers.context import engine_of, service_of
from handlers.documents import check_collection, meant_by
from handlers.models import chosen_model, named
from handlers.retries import try_again
from handlers.streams import cursor_of
from handlers.templates import prompt_for
from handlers.terms import terms_of


async def post_chat(request: Request) -> Response:
    body = await body_of(request, ChatBody)
    return await _chat(request, body, body.variables, attach_same=False)


async def get_chat(request: Request) -> Response:
    """For EventSource, which can only GET, repeats its URL, and gives up for good on any status but 200.

    HEAD comes with every GET route and starts nothing.
    """
    if engine_of(request).draining or request.method == "HEAD":
        return try_again()
    return await _chat(request, query_of(request, ChatQuery), {}, attach_same=True)


async def post_messages(request: Request) -> Response:
    """The client brings the whole conversation as it sees it; a single message continues the stored one."""
    body = await body_of(request, MessagesBody)
    turns = [Turn(turn.role, turn.content) for turn in body.messages if turn.role != "system"]
    if not turns or turns[-1].role != "user" or not turns[-1].content:
        raise ChatError("invalid_request", "messages: the last one has to be the user's.")
    meaning = [[turn.model_dump() for turn in body.messages], body.session_id, body.user_id, *named(body.model)]
    means = _named(body.template, body.variables) + meant_by(body.collection)
    claim = claim_of(request, body.request_id, *meaning, *means)
    if (before := await replayed(request, claim)) is not None:
        return await answer(request, before, body)
    await check_collection(request, body.collection, body.session_id, body.user_id)
    prompt = await prompt_for(request, body.template, body.variables, body.session_id)
    system = [turn.content for turn in body.messages if turn.role == "system"]
    new = NewRun(
        id=new_id("run"),
        session=replace(_session(body.session_id, body.user_id), collection=body.collection),
        user_id=body.user_id,
        turns=within_limit(request, turns),
        model=chosen_model(request, body.model),
        place=Leaf() if len(turns) == 1 else Matching(),
        terms=terms_of(request, prompt, system),
        on_busy=body.on_busy,
        claim=claim,
    )
    return await answer(request, new, body)


async def _chat(request: Request, body: ChatQuery, variables: Variables, *, attach_same: bool) -> Response:
    branches = "parent_id" in body.model_fields_set
    meaning = [body.message, body.session_id, body.user_id, branches, body.parent_id, *named(body.model)]
    means = _named(body.template, variables) + meant_by(body.collection)
    claim = claim_of(request, body.request_id, *meaning, *means)
    if (before := await replayed(request, claim)) is not None:
        return await answer(request, before, body)
    await check_collection(request, body.collection, body.session_id, body.user_id)
    new = NewRun(
        id=new_id("run"),
        session=replace(_session(body.session_id, body.user_id), collection=body.collection),
        user_id=body.user_id,
        turns=within_limit(request, [Turn("user", body.message)]),
        model=chosen_model(request, body.model),
        place=Under(body.parent_id) if branches else Leaf(),
        terms=Terms(await prompt_for(request, body.template, variables, body.session_id) or None),
        on_busy=body.on_busy,
        claim=claim,
        attach_same=attach_same,
    )
    return await answer(request, new, body)


def within_limit(request: Request, turns: list[Turn]) -> list[Turn]:
    """The turns, if the user says nothing too long. Answers may be longer, and come back.

    Who comes back to a run may have said more, by the limit of that time.

    Raises:
        ChatError: ``invalid_request``.
    """
    limit = service_of(request).message_limit
    said = [turn.content for turn in turns if turn.role == "user"]
    if cursor_of(request) is None and any(len(content) > limit for content in said):
        raise ChatError("invalid_request", f"A message may have {limit:,} characters at most.")
    return turns


def _named(template: str | None, variables: Variables) -> list[object]:
    """The template's part in what a request means; nothing where none is named, as before there were any."""
    return [] if template is None else [template, dict(variables)]


def _session(session_id: str | None, user_id: str | None) -> NewSession:
    return NewSession(session_id or new_id("ses"), user_id or anonymous_user())
