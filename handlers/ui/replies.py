"""The streams that the AI SDK's chat gets of runs that it did not start with this request."""

from collections.abc import Sequence

from starlette.requests import Request

from chat.events import Event, TextDelta, ToolCalled, ToolFinished, ends
from chat.live import FOLLOW_EVENTS
from chat.ownership import UserStore
from chat.runs import Run
from chat.sessions import Message
from handlers.context import engine_of
from handlers.formats.ui_messages import Told, UIMessages


async def names_of_tools(request: Request, run_id: str) -> Sequence[str]:
    """The client's own tools, as the run knows them."""
    return [spec.name for spec in (await engine_of(request).store.terms(run_id)).tools]


async def rebuilt(request: Request, run: Run) -> UIMessages:
    """For a client that begins its message anew, with the answers that the run goes on with."""
    store = engine_of(request).store
    message_id, earlier = run.answer_id, list[Told]()
    answered = await store.message(run.message_id)
    while answered is not None and answered.role == "assistant":
        message_id = answered.id
        earlier.insert(0, await told_of(store, answered))
        answered = await store.message(answered.parent_id) if answered.parent_id is not None else None
    return UIMessages(await names_of_tools(request, run.id), message_id=message_id, earlier=earlier)


async def told_of(store: UserStore, answer: Message) -> Told:
    """The answer as it was streamed, as long as that is kept, and then what the client has brought to its calls."""
    events: list[Event] = []
    while answer.run_id is not None and not (events and ends(events[-1])):
        page = await store.events(answer.run_id, len(events), FOLLOW_EVENTS)
        if not page.events:
            break  # the session has just been deleted
        events += page.events
    events = [event for event in events if not ends(event)]
    calls = [call for step in answer.steps for call in step.calls]
    if not {event.call_id for event in events if isinstance(event, ToolCalled)}.issuperset([call.id for call in calls]):
        events = [*([TextDelta(answer.content)] if answer.content else []), *answer.sources]
        events += [ToolCalled(call.id, call.name, call.arguments) for call in calls]
    known = {event.call_id for event in events if isinstance(event, ToolFinished)}
    brought = [call for call in calls if call.answered and call.id not in known]
    events += [ToolFinished(call.id, call.result, call.error) for call in brought]
    return Told(answer.run_id or answer.id, events)
