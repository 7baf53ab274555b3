"""``openai-chatkit``'s server as its guide sets it up: the Agents SDK, FastAPI, a store in memory."""

import os
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from chatkit.agents import AgentContext, simple_to_agent_input, stream_agent_response
from chatkit.server import ChatKitServer, StreamingResult
from chatkit.store import NotFoundError, Store
from chatkit.types import Attachment, Page, ThreadItem, ThreadMetadata, ThreadStreamEvent, UserMessageItem
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

Context = dict[str, Any]

set_tracing_disabled(disabled=True)  # it would send the traces to OpenAI


def page(things: Sequence[Any], after: str | None, limit: int, order: str) -> Page[Any]:
    ordered = list(things) if order == "asc" else list(reversed(things))
    begin = next((index + 1 for index, thing in enumerate(ordered) if thing.id == after), 0)
    data = ordered[begin : begin + limit]
    has_more = begin + limit < len(ordered)
    return Page(data=data, has_more=has_more, after=data[-1].id if has_more else None)


class MemoryStore(Store[Context]):
    def __init__(self) -> None:
        self.threads: dict[str, ThreadMetadata] = {}
        self.items: defaultdict[str, dict[str, ThreadItem]] = defaultdict(dict)

    async def load_thread(self, thread_id: str, context: Context) -> ThreadMetadata:
        if thread_id not in self.threads:
            raise NotFoundError(thread_id)
        return self.threads[thread_id]

    async def save_thread(self, thread: ThreadMetadata, context: Context) -> None:
        self.threads[thread.id] = thread

    async def load_threads(self, limit: int, after: str | None, order: str, context: Context) -> Page[ThreadMetadata]:
        return page(list(self.threads.values()), after, limit, order)

    async def delete_thread(self, thread_id: str, context: Context) -> None:
        self.threads.pop(thread_id, None)
        self.items.pop(thread_id, None)

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Context
    ) -> Page[ThreadItem]:
        return page(list(self.items[thread_id].values()), after, limit, order)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Context) -> None:
        self.items[thread_id][item.id] = item

    async def save_item(self, thread_id: str, item: ThreadItem, context: Context) -> None:
        self.items[thread_id][item.id] = item

    async def load_item(self, thread_id: str, item_id: str, context: Context) -> ThreadItem:
        if item_id not in self.items[thread_id]:
            raise NotFoundError(item_id)
        return self.items[thread_id][item_id]

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Context) -> None:
        self.items[thread_id].pop(item_id, None)

    async def save_attachment(self, attachment: Attachment, context: Context) -> None:
        raise NotImplementedError

    async def load_attachment(self, attachment_id: str, context: Context) -> Attachment:
        raise NotFoundError(attachment_id)

    async def delete_attachment(self, attachment_id: str, context: Context) -> None:
        raise NotFoundError(attachment_id)


model = OpenAIChatCompletionsModel("gpt-4o-mini", AsyncOpenAI(base_url=os.environ["OPENAI_BASE_URL"]))
assistant = Agent(name="assistant", instructions="You are a helpful assistant.", model=model)


class Server(ChatKitServer[Context]):
    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: Context
    ) -> AsyncIterator[ThreadStreamEvent]:
        items = await self.store.load_thread_items(thread.id, after=None, limit=20, order="asc", context=context)
        agent_context: AgentContext[Context] = AgentContext(thread=thread, store=self.store, request_context=context)
        result = Runner.run_streamed(assistant, await simple_to_agent_input(items.data), context=agent_context)
        async for event in stream_agent_response(agent_context, result):
            yield event


app = FastAPI()
server = Server(MemoryStore())


@app.post("/chatkit")
async def chatkit(request: Request) -> Response:
    result = await server.process(await request.body(), context={})
    if isinstance(result, StreamingResult):
        return StreamingResponse(result, media_type="text/event-stream")
    return Response(result.json, media_type="application/json")
