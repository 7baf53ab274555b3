"""``/ag-ui``: a run, for the clients of AG-UI: https://docs.ag-ui.com/concepts/architecture"""

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import Response

from chat.commands import Leaf, Matching, NewRun
from chat.errors import ChatError
from chat.ids import anonymous_user, new_id
from chat.runs import Cursor
from chat.sessions import NewSession
from chat.terms import Terms, ToolSpec
from handlers.answers import answer, claim_of, replayed
from handlers.bodies import COLLECTION_MEANS, Body, CollectionName, Id, Key, ModelName, Reply, body_of, query_of
from handlers.chat import within_limit
from handlers.context import engine_of
from handlers.documents import check_collection, meant_by
from handlers.formats.ag_ui import AgUiEvents
from handlers.models import chosen_model
from handlers.streams import cursor_of, follow, tell
from handlers.templates import prompt_for
from handlers.terms import NO_PARAMETERS, terms_of
from handlers.v1.bodies import CompletionMessage, ToolName
from handlers.v1.turns import instructions_of, turns_of


class _Camel(Body):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class AgUiMessage(CompletionMessage):
    """``reasoning`` and ``activity`` are for show, and not sent to the model."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    id: str
    role: Literal["system", "developer", "user", "assistant", "tool", "reasoning", "activity"]  # type: ignore[assignment]

    @property
    def answer(self) -> str | None:
        return self.id.partition(".")[0]  # as AgUiEvents has made it


class AgUiTool(_Camel):
    name: ToolName
    description: str = ""
    parameters: dict[str, Any] | None = None


class AgUiContext(_Camel):
    description: str
    value: str


class AgUiProps(_Camel):
    model: ModelName | None = Field(None, description="The model that is to answer, one of `GET /models`.")
    collection: CollectionName | None = Field(None, description=COLLECTION_MEANS)


class RunAgentInput(_Camel):
    thread_id: Id = Field(description="The conversation; an unknown id creates it.")
    run_id: Key = Field(description="The client's own name for the run: the same again attaches to it.")
    messages: list[AgUiMessage] = Field(min_length=1, description="The conversation as the client sees it.")
    tools: list[AgUiTool] | None = Field(None, description="The client's own, which it runs itself.")
    context: list[AgUiContext] | None = Field(None, description="What the model is told besides.")
    forwarded_props: AgUiProps | None = None


class JoinQuery(_Camel):
    run_id: Key = Field(description="The client's own name for the run.")
    thread_id: Id | None = Field(None, description="The client's conversation.")


async def run_agent(request: Request) -> Response:
    """The client's name for a run is its idempotency key: sent again, it attaches, and a resume goes on."""
    body = await body_of(request, RunAgentInput)
    encoder = _encoder(request, body.thread_id, body.run_id)
    props = body.forwarded_props or AgUiProps()
    meant = body.model_dump(exclude={"forwarded_props": {"collection"}})
    claim = claim_of(request, body.run_id, meant, *meant_by(props.collection))
    if (before := await replayed(request, claim)) is not None:
        return await answer(request, before, Reply(), encoder=encoder)
    spoken = [message for message in body.messages if message.role not in ("reasoning", "activity")]
    turns = within_limit(request, list(turns_of(spoken)))
    await check_collection(request, props.collection, body.thread_id, None)
    new = NewRun(
        id=new_id("run"),
        session=NewSession(body.thread_id, anonymous_user(), collection=props.collection),
        user_id=None,
        turns=turns,
        model=chosen_model(request, props.model),
        place=Leaf() if len(turns) == 1 else Matching(),
        terms=await _terms(request, body, spoken),
        claim=claim,
    )
    if (cursor := cursor_of(request)) is not None:
        await _refuse_ahead(request, cursor)
    return await answer(request, new, Reply(), encoder=encoder)


async def join_agent(request: Request) -> Response:
    """The whole run again, for another tab or a page that was loaded anew."""
    query = query_of(request, JoinQuery)
    run_id = await engine_of(request).store.run_of_key(query.run_id)
    if run_id is None:
        raise ChatError("not_found", "There is no such run.")
    run = await engine_of(request).run(run_id)
    cursor = cursor_of(request)
    if cursor is not None:
        if cursor.run_id != run.id:
            raise ChatError("cursor_mismatch", "The event id belongs to another run.")
        await _refuse_ahead(request, cursor)
    encoder = _encoder(request, run.session_id, query.run_id)
    return await follow(request, run.id, cursor.seq if cursor else 0, encoder)


async def _refuse_ahead(request: Request, cursor: Cursor) -> None:
    """Only who encodes a run's events knows how many frames there are of it.

    Raises:
        ChatError: ``not_found``, ``cursor_expired``; ``cursor_ahead`` of anything that was ever shown.
    """
    engine = engine_of(request)
    run = await engine.resumable(cursor.run_id, min(cursor.seq, 1))
    told = AgUiEvents("", "")
    await tell(engine, run, told)
    if cursor.seq >= told.frames:
        raise ChatError("cursor_ahead", "This run has no such event; read the session's messages again.")


def _encoder(request: Request, thread_id: str, run_id: str) -> AgUiEvents:
    """Only TanStack's client, which comes back when it is cut off, sends its run's id as a header."""
    resumes = "x-run-id" in request.headers or request.method == "GET"
    return AgUiEvents(thread_id, run_id, resumes=resumes)


async def _terms(request: Request, body: RunAgentInput, spoken: list[AgUiMessage]) -> Terms:
    tools = [ToolSpec(tool.name, tool.description, tool.parameters or NO_PARAMETERS) for tool in body.tools or ()]
    context = [f"{entry.description}:\n{entry.value}" for entry in body.context or ()]
    prompt = await prompt_for(request, None, {}, body.thread_id)
    return terms_of(request, prompt, [*instructions_of(spoken), *context], tools)
