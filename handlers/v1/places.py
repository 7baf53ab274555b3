"""Where in which conversation a response belongs."""

from collections.abc import Mapping, Set

from starlette.requests import Request

from chat.commands import Answering, Leaf, Matching, Place, Under
from chat.errors import ChatError
from chat.runs import Run, RunStatus
from chat.sessions import Turn
from handlers.chat import within_limit
from handlers.context import engine_of
from handlers.formats.responses import run_id_of
from handlers.v1.bodies import session_in_header
from handlers.v1.items import refuse_open_calls, turns_in, with_results
from handlers.v1.response_bodies import ConversationBody, InputItem, ResponseBody

RECENT = 50
"""Messages among which the calls are looked for that a client brings results of."""


async def run_of(request: Request, response_id: str) -> Run:
    """Raises ChatError ``not_found``."""
    run = await engine_of(request).store.run(run_id_of(response_id))
    if run is None:
        raise ChatError("not_found", "There is no such response.")
    return run


def session_named(request: Request, body: ResponseBody) -> str | None:
    """The session in the body or the header. Raises ChatError ``invalid_request`` if they are two."""
    conversation = body.conversation
    inside = conversation.id if isinstance(conversation, ConversationBody) else conversation
    outside = session_in_header(request)
    if None not in (inside, outside) and inside != outside:
        raise ChatError("invalid_request", "conversation: X-Session-Id names another session.")
    return inside or outside


async def placed(request: Request, body: ResponseBody, items: list[InputItem]) -> tuple[str | None, Place, list[Turn]]:
    """The session, if one is named; the place in it; and what is said there.

    Raises:
        ChatError: ``invalid_request``; ``not_found`` for a previous response that is none.
    """
    results, turns = turns_in(items)
    within_limit(request, turns)
    session_id = session_named(request, body)
    if body.previous_response_id is not None:
        run = await run_of(request, body.previous_response_id)
        if body.conversation is not None or session_id not in (None, run.session_id):
            raise ChatError("invalid_request", "previous_response_id: it says which session is meant; name no other.")
        answer = await engine_of(request).answer(run)
        if not results:
            if run.status is RunStatus.COMPLETED:
                refuse_open_calls(answer)
            return run.session_id, Under(run.answer_id), turns
        return run.session_id, Answering(run.answer_id), [_with_all(answer, results), *turns]
    if results:
        answer_id, answer = await _calling(request, session_id, results.keys())
        return session_id, Answering(answer_id), [_with_all(answer, results), *turns]
    # A conversation's input is what is new in it; with the header alone, the client may bring all that it has.
    whole = body.conversation is None and len(turns) > 1
    return session_id, Matching() if whole else Leaf(), turns


async def _calling(request: Request, session_id: str | None, calls: Set[str]) -> tuple[str, Turn]:
    """The session's latest answer that has made these calls; without one, an answer that has called nothing."""
    if session_id is not None:
        page = await engine_of(request).store.messages(session_id, RECENT, None)
        for message in reversed(page.items):
            if calls <= {call.id for step in message.steps for call in step.calls}:
                return message.id, Turn(message.role, message.content, message.steps)
    return "", Turn("assistant", "")


def _with_all(answer: Turn, results: Mapping[str, str]) -> Turn:
    whole = with_results(answer, results)
    refuse_open_calls(whole)
    return whole
