"""The same as :mod:`benchmarks.peers.handwritten` with what FastAPI has for it since 0.135: ``fastapi.sse``."""

import uuid
from collections.abc import AsyncIterable

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()
sessions: dict[str, list[ChatCompletionMessageParam]] = {}


class ChatRequest(BaseModel):
    message: str
    session_id: str | None = None


@app.post("/chat", response_class=EventSourceResponse)
async def chat(request: ChatRequest) -> AsyncIterable[ServerSentEvent]:
    messages = sessions.setdefault(request.session_id or str(uuid.uuid4()), [])
    messages.append({"role": "user", "content": request.message})
    stream = await client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)
    said = ""
    async for chunk in stream:
        if chunk.choices and (text := chunk.choices[0].delta.content):
            said += text
            yield ServerSentEvent(raw_data=text)
    messages.append({"role": "assistant", "content": said})
    yield ServerSentEvent(raw_data="[DONE]", event="done")
