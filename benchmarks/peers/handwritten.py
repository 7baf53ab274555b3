"""The endpoint that is written by hand everywhere: FastAPI, the openai SDK, a generator, sessions in a dictionary."""

import uuid
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

app = FastAPI()
app.add_middleware(
    CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
)

client = AsyncOpenAI()
sessions: dict[str, list[ChatCompletionMessageParam]] = {}


class ChatRequest(BaseModel):
    message: str
    session_id: str | None = None


async def answer(messages: list[ChatCompletionMessageParam]) -> AsyncIterator[str]:
    stream = await client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)
    said = ""
    async for chunk in stream:
        if chunk.choices and (text := chunk.choices[0].delta.content):
            said += text
            yield f"data: {text}\n\n"
    messages.append({"role": "assistant", "content": said})
    yield "data: [DONE]\n\n"


@app.post("/chat")
async def chat(request: ChatRequest) -> StreamingResponse:
    messages = sessions.setdefault(request.session_id or str(uuid.uuid4()), [])
    messages.append({"role": "user", "content": request.message})
    headers = {"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"}
    return StreamingResponse(answer(messages), media_type="text/event-stream", headers=headers)
