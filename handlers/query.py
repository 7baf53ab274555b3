"""One question, one answer: ``/query`` and ``/query/stream``. Each is a session of its own."""

from starlette.requests import Request
from starlette.responses import Response

from chat.commands import NewRun, Started
from chat.errors import ChatError
from chat.ids import anonymous_user, new_id
from chat.memory import title_of
from chat.runs import Run, RunStatus
from chat.sessions import NewSession, Turn
from handlers.answers import answer, claim_of, replayed
from handlers.bodies import QueryBody, Reply, body_of
from handlers.chat import within_limit
from handlers.documents import check_collection, meant_by
from handlers.formats import LINES
from handlers.models import chosen_model, named
from handlers.views import QueryView, source_view


async def post_query(request: Request) -> Response:
    return await answer(request, await _question(request), Reply(stream=False), shape=_model_and_answer)


async def post_query_stream(request: Request) -> Response:
    return await answer(request, await _question(request), Reply(), encoder=LINES)


async def _question(request: Request) -> NewRun | Started:
    body = await body_of(request, QueryBody)
    both = request.url.path.removesuffix("/stream")
    meant = [body.prompt, *named(body.model), *meant_by(body.collection)]
    claim = claim_of(request, body.request_id, *meant, path=both)
    if (before := await replayed(request, claim)) is not None:
        return before
    await check_collection(request, body.collection, None, None)
    title = title_of(body.prompt) or None  # worth no model's time
    return NewRun(
        id=new_id("run"),
        session=NewSession(new_id("ses"), anonymous_user(), title, collection=body.collection),
        user_id=None,
        turns=within_limit(request, [Turn("user", body.prompt)]),
        model=chosen_model(request, body.model),
        claim=claim,
    )


def _model_and_answer(run: Run, said: Turn) -> QueryView:
    """There is no room here to say that an answer is only a part of one."""
    if run.status is not RunStatus.COMPLETED:
        message = "The answer was stopped before it was complete."
        raise ChatError("run_stopped", message, details={"run_id": run.id, "answer": said.content})
    view: QueryView = {"model": run.model, "answer": said.content}
    if said.sources:
        view["sources"] = [source_view(source) for source in said.sources]
    return view
