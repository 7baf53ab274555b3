"""``/api/chat`` for the AI SDK: say something, resume, stop."""

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from chat.commands import NewRetry, NewRun, Started
from chat.errors import ChatError
from handlers import chat
from handlers.answers import answer, replayed
from handlers.bodies import Reply, body_of, json_of
from handlers.context import engine_of
from handlers.formats.ui_messages import UIMessages
from handlers.streams import follow, nothing_more
from handlers.ui.asking import claim_for, wanted
from handlers.ui.bodies import UIChatBody, UIStopBody, is_ui_chat
from handlers.ui.replies import names_of_tools, rebuilt
from handlers.ui.turns import decisions_of, turns_of


async def post_messages(request: Request) -> Response:
    """Two kinds of clients share this address; their bodies tell them apart."""
    if not is_ui_chat(await json_of(request)):
        return await chat.post_messages(request)
    body = await body_of(request, UIChatBody)
    if body.said and (decisions := decisions_of(body.said[-1])):
        return await _decide(request, body, decisions)
    reply = Reply(on_disconnect=body.on_disconnect)
    claim = await claim_for(request, body)
    new = await replayed(request, claim) or await wanted(request, body, claim)
    encoder = UIMessages(await _tools_of(request, new), message_id=_continued(body))
    return await answer(request, new, reply, encoder=encoder)


async def resume_chat(request: Request) -> Response:
    """The whole of the answer that is being written: the client rebuilds its message."""
    run = await engine_of(request).store.active_run(request.path_params["session_id"])
    return nothing_more() if run is None else await follow(request, run.id, 0, await rebuilt(request, run))


async def stop_chat(request: Request) -> Response:
    """The explicit stop: a connection that is lost, or aborted, stops nothing."""
    body, engine = await body_of(request, UIStopBody), engine_of(request)
    run = await engine.store.active_run(request.path_params["session_id"])
    if run is not None and body.active_stream_id in (None, run.id):
        await engine.cancel(run.id, "requested")
    return nothing_more()


async def _decide(request: Request, body: UIChatBody, decisions: Mapping[str, bool]) -> Response:
    """Calls have waited for their user's yes; the run goes on, and the client's message with it."""
    engine = engine_of(request)
    decided = [(*approval_id.partition(".")[::2], approved) for approval_id, approved in decisions.items()]
    run = await engine.run(decided[0][0])
    if run.session_id != body.id or any(run_id != run.id for run_id, _, _ in decided):
        raise ChatError("not_found", "No such call waits for an approval in this conversation.")
    for run_id, call_id, approved in decided:
        await engine.approve(run_id, call_id, approved=approved)
    tools, calls = await names_of_tools(request, run.id), [call_id for _, call_id, _ in decided]
    return await follow(request, run.id, 0, UIMessages(tools, message_id=body.said[-1].id, decided=calls))


async def _tools_of(request: Request, new: NewRun | NewRetry | Started) -> Sequence[str]:
    if isinstance(new, NewRun):
        return [spec.name for spec in new.terms.tools]
    return await names_of_tools(request, new.run_id if isinstance(new, NewRetry) else new.run.id)


def _continued(body: UIChatBody) -> str | None:
    """The client's message that the answer goes on with, if it is not the beginning of one."""
    if body.trigger == "regenerate-message" or turns_of(body.said)[-1].role != "assistant":
        return None
    return body.said[-1].id
