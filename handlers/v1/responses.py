"""``/v1/responses``: a run, as a response."""

import sys
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.commands import Claim, NewRun
from chat.errors import ChatError
from chat.ids import anonymous_user, new_id
from chat.runs import Run
from chat.sessions import NewSession
from chat.terms import Terms
from handlers.answers import answer, begun_once, claim_of, outcome, replayed
from handlers.bodies import Reply, body_of, query_of
from handlers.context import engine_of
from handlers.documents import check_collection, meant_by
from handlers.formats.response_views import ResponseView
from handlers.formats.responses import ResponseEvents, remembered
from handlers.models import chosen_model
from handlers.streams import cursor_of, follow, run_headers, tell
from handlers.templates import prompt_for
from handlers.terms import terms_of
from handlers.v1.bodies import BESIDE
from handlers.v1.items import instructions_in
from handlers.v1.places import placed, run_of, session_named
from handlers.v1.response_bodies import DELIVERY, ECHOED, MessageInput, ResponseBody, ResponseQuery
from handlers.v1.response_options import options_of
from handlers.v1.tools import tools_of


async def create_response(request: Request) -> Response:
    """In the background or not, the run goes on when the client goes away."""
    body = await body_of(request, ResponseBody)
    meant = body.model_dump(exclude=DELIVERY | BESIDE, by_alias=True)
    claim = claim_of(request, None, meant, session_named(request, body), *meant_by(body.collection))
    started = await replayed(request, claim) or await begun_once(request, await _new_run(request, body, claim))
    if body.stream:
        encoder = ResponseEvents(await engine_of(request).store.terms(started.run.id))
        return await answer(request, started, Reply(stream=True), encoder=encoder)
    run = started.run if body.background else (await outcome(request, started.run.id))[0]
    return JSONResponse(await _view(request, run), headers=run_headers(run, replayed=started.replayed))


async def get_response(request: Request) -> Response:
    query = query_of(request, ResponseQuery)
    run = await run_of(request, request.path_params["response_id"])
    if query.stream:
        return await _followed(request, run, -1 if query.starting_after is None else query.starting_after)
    return JSONResponse(await _view(request, run), headers=run_headers(run) | {"Cache-Control": "no-store"})


async def cancel_response(request: Request) -> Response:
    run = await run_of(request, request.path_params["response_id"])
    return JSONResponse(await _view(request, await engine_of(request).cancel(run.id, "requested")))


async def _new_run(request: Request, body: ResponseBody, claim: Claim | None) -> NewRun:
    items = [MessageInput(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    session_id, place, turns = await placed(request, body, list(items))
    await check_collection(request, body.collection, session_id, body.user)
    prompt = await prompt_for(request, None, {}, session_id)
    said = [text for text in (body.instructions, *instructions_in(items)) if text]
    terms = terms_of(request, prompt, said, tools_of(body.tools or ()), options_of(body))
    labels = body.model_dump(include=ECHOED, exclude_none=True, by_alias=True)
    return NewRun(
        id=new_id("run"),
        session=NewSession(session_id or new_id("ses"), body.user or anonymous_user(), collection=body.collection),
        user_id=body.user,
        turns=turns,
        model=chosen_model(request, body.model),
        place=place,
        terms=replace(terms, labels=labels),
        on_busy=body.on_busy,
        claim=claim,
    )


async def _followed(request: Request, run: Run, starting_after: int) -> Response:
    cursor = cursor_of(request)
    if cursor is not None and cursor.run_id != run.id:
        raise ChatError("cursor_mismatch", "The event id belongs to another run.")
    told = await _told(request, run)
    if starting_after > told.number and not told.folded:
        message = "starting_after: the response has no such event."
        raise ChatError("cursor_ahead", message, details={"retryable": False})
    if not told.folded:
        return await follow(request, run.id, cursor.seq if cursor else 0, ResponseEvents(told.terms, starting_after))
    if cursor is not None or starting_after > 0:
        raise ChatError("cursor_expired", "The events behind this one are gone; ask for the response itself.")
    _, frames = await _recalled(request, run, told.terms, starting_after)
    headers = run_headers(run) | {"Cache-Control": "no-store"}
    return Response(frames, headers=headers, media_type="text/event-stream")


async def _view(request: Request, run: Run) -> ResponseView:
    """The response as it is now."""
    told = await _told(request, run)
    if told.folded:
        told, _ = await _recalled(request, run, told.terms, sys.maxsize)
    return told.response(run)


async def _told(request: Request, run: Run) -> ResponseEvents:
    """What the log says of the response by now, in no frames."""
    engine = engine_of(request)
    told = ResponseEvents(await engine.store.terms(run.id), sys.maxsize)
    await tell(engine, run, told)
    return told


async def _recalled(request: Request, run: Run, terms: Terms, starting_after: int) -> tuple[ResponseEvents, bytes]:
    """A response whose log is gone, from the answer that is stored."""
    engine = engine_of(request)
    ended = await engine.run(run.id)
    assert ended.terminal is not None  # only then logs are folded
    events = ResponseEvents(terms, starting_after)
    opening = events.opening(ended, 0)
    return events, opening + events.encode(run.id, 1, remembered(await engine.answer(ended), ended.terminal))
