"""Runs: look at one, follow it, stop it, answer once more."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.commands import NewRetry
from chat.errors import ChatError
from chat.ids import new_id
from handlers.answers import answer, claim_of, replayed
from handlers.bodies import ApprovalBody, FollowQuery, RetryBody, body_of, query_of
from handlers.context import engine_of, router_of
from handlers.formats import FORMATS
from handlers.models import chosen_model, named
from handlers.sealing import seals_of
from handlers.streams import cursor_of, follow
from handlers.views import TicketView, events_url, run_view


async def get_run(request: Request) -> Response:
    return JSONResponse(run_view(await engine_of(request).run(request.path_params["run_id"])))


async def follow_run(request: Request) -> Response:
    run_id, query = request.path_params["run_id"], query_of(request, FollowQuery)
    after = query.after
    if after is not None and after.isascii() and after.isdigit():
        after = f"{run_id}.{after}"
    cursor = cursor_of(request, after)
    if cursor is not None and cursor.run_id != run_id:
        raise ChatError("cursor_mismatch", "The event id belongs to another run.")
    return await follow(request, run_id, cursor.seq if cursor else 0, FORMATS[query.format])


async def create_ticket(request: Request) -> Response:
    run = await engine_of(request).run(request.path_params["run_id"])
    ticket, until = await seals_of(request).ticket_for(request.scope, run)
    address = f"{events_url(run.id)}?ticket={ticket}"
    view: TicketView = {"ticket": ticket, "events_url": address, "expires_at": until * 1000}
    return JSONResponse(view, 201, {"Cache-Control": "no-store"})


async def cancel_run(request: Request) -> Response:
    run = await engine_of(request).cancel(request.path_params["run_id"], "requested")
    return JSONResponse(run_view(run))


async def approve_call(request: Request) -> Response:
    body = await body_of(request, ApprovalBody)
    path = request.path_params
    run = await engine_of(request).approve(path["run_id"], path["call_id"], approved=body.approved)
    return JSONResponse(run_view(run))


async def retry_run(request: Request) -> Response:
    body = await body_of(request, RetryBody)
    claim = claim_of(request, body.request_id, *named(body.model))
    if (before := await replayed(request, claim)) is not None:
        return await answer(request, before, body)
    run = await engine_of(request).run(request.path_params["run_id"])
    same = run.model if router_of(request).offers(run.model) else None
    new = NewRetry(
        id=new_id("run"),
        run_id=run.id,
        model=chosen_model(request, body.model or same),
        on_busy=body.on_busy,
        claim=claim,
    )
    return await answer(request, new, body)
