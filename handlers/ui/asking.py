"""What the AI SDK's chat asks for: a message answered, or one answered once more."""

import hashlib

from starlette.requests import Request

from chat.commands import Claim, Leaf, Matching, NewRetry, NewRun, Place
from chat.errors import ChatError
from chat.ids import anonymous_user, new_id
from chat.ownership import UserStore
from chat.sessions import NewSession
from chat.terms import ToolSpec
from handlers.answers import claim_of
from handlers.chat import within_limit
from handlers.context import engine_of, router_of
from handlers.documents import check_collection
from handlers.models import chosen_model
from handlers.templates import prompt_for
from handlers.terms import terms_of
from handlers.ui.bodies import UIChatBody
from handlers.ui.turns import instructions_of, turns_of


async def wanted(request: Request, body: UIChatBody, claim: Claim | None) -> NewRun | NewRetry:
    """What the request is to start.

    Raises:
        ChatError: it cannot be had; a request that has been answered before is to be found before this is asked for.
    """
    retried = await _run_to_retry(request, body)
    return await (_asked(request, body, claim) if retried is None else _asked_again(request, body, claim, retried))


async def _asked(request: Request, body: UIChatBody, claim: Claim | None) -> NewRun:
    """The client's view of the conversation, or its last message alone."""
    turns = within_limit(request, list(turns_of(body.said)))
    prompt = await prompt_for(request, body.template, body.variables, body.id)
    await check_collection(request, body.collection, body.id, body.user_id)
    specs = [ToolSpec(name, tool.description, tool.input_schema) for name, tool in body.tools.items()]
    return NewRun(
        id=new_id("run"),
        session=NewSession(body.id, body.user_id or anonymous_user(), collection=body.collection),
        user_id=body.user_id,
        turns=turns,
        model=chosen_model(request, body.model),
        place=await _place(request, body),
        terms=terms_of(request, prompt, instructions_of(body.said), specs),
        on_busy=body.on_busy,
        claim=claim,
        attach_same=True,
    )


async def _asked_again(request: Request, body: UIChatBody, claim: Claim | None, run_id: str) -> NewRetry:
    same = (await engine_of(request).run(run_id)).model
    return NewRetry(
        id=new_id("run"),
        run_id=run_id,
        model=chosen_model(request, body.model or (same if router_of(request).offers(same) else None)),
        on_busy=body.on_busy,
        claim=claim,
        attach_same=True,
    )


async def _run_to_retry(request: Request, body: UIChatBody) -> str | None:
    """The run whose answer is wanted once more; None if that is not the request, or if the messages have to tell.

    Raises:
        ChatError: ``not_found``: the client brings no messages, and there is nothing that was answered.
    """
    if body.trigger != "regenerate-message":
        return None
    store = engine_of(request).store
    named = await store.message(body.message_id) if body.message_id else None
    if named is not None and named.session_id == body.id and named.run_id is not None:
        return named.run_id
    if len(body.said) > 1:
        return None
    run_id, question = await _latest_answer(store, body.id)
    if not body.said and run_id is None:
        raise ChatError("not_found", "Nothing was answered in this conversation.")
    return run_id if not body.said or question == turns_of(body.said)[-1].content else None


async def _latest_answer(store: UserStore, session_id: str) -> tuple[str | None, str | None]:
    """The run that answers the last question of the session's branch, or has begun to; and that question."""
    active, session = await store.active_run(session_id), await store.session(session_id)
    leaf_id = session.leaf_id if session is not None else None  # the question, while its answer is being written
    run_id = active.id if active is not None else None
    message = await store.message(leaf_id) if leaf_id is not None else None
    while message is not None and message.role == "assistant":
        run_id, parent_id = message.run_id, message.parent_id
        message = await store.message(parent_id) if parent_id is not None else None
    return run_id, None if message is None else message.content


async def _place(request: Request, body: UIChatBody) -> Place:
    """A message alone is the next one, unless it takes the place of one that is known, or goes on with it.

    Raises:
        ChatError: ``invalid_request``: nobody can tell which one that is.
    """
    first, *more = [message for message in body.said if message.role != "system"]
    alone = not more and body.trigger == "submit-message"
    if alone and first.role == "user" and (first.id is None or first.id != body.message_id):
        return Leaf()
    if alone and (first.role == "assistant" or not body.messages):
        known = await engine_of(request).store.message(first.id) if first.id is not None else None
        if known is None or known.session_id != body.id:
            unknown = "messages: this one is not known by its id; send the whole conversation."
            raise ChatError("invalid_request", unknown)
    return Matching()


async def claim_for(request: Request, body: UIChatBody) -> Claim | None:
    """The client's key, or else the body: it names its last message, so that sent again it is a repetition.

    Another answer may be wanted any number of times.
    """
    meaning = hashlib.sha256(await request.body()).hexdigest()
    claim = claim_of(request, body.request_id, meaning)
    if claim is not None or body.trigger == "regenerate-message" or body.said[-1].id is None:
        return claim
    return Claim(f"ui.{meaning}", meaning, lasting=False)
