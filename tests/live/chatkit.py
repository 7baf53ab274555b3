"""What ChatKit's widget sends, and what comes back, held against the types of its package."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from chatkit.types import ChatKitReq, ItemsListReq, Page, Thread
from pydantic import TypeAdapter

from tests.live.service import PATIENCE, Service
from tests.widget import Widget, events_in, known, known_item

_REQUEST: TypeAdapter[ChatKitReq] = TypeAdapter(ChatKitReq)


def said(text: str, **more: object) -> dict[str, Any]:
    """What a user has typed."""
    content = [{"type": "input_text", "text": text}]
    return {"content": content, "attachments": [], "inference_options": {}} | more


def operation(kind: str, /, **params: Any) -> dict[str, Any]:
    """A request that the package reads."""
    asked = {"type": kind, "params": params}
    _REQUEST.validate_python(asked)
    return asked


class Chat:
    """A page with the widget in it: one service, one URL."""

    def __init__(self, service: Service, **query: str) -> None:
        self.service = service
        self.query = query

    async def post(self, kind: str, /, **params: Any) -> httpx.Response:
        return await self.service.client.post("/chatkit", params=self.query, json=operation(kind, **params))

    async def get(self, kind: str, /, **params: Any) -> Any:
        response = await self.post(kind, **params)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        return response.json()

    async def refused(self, kind: str, /, **params: Any) -> tuple[int, str]:
        response = await self.post(kind, **params)
        return response.status_code, str(response.json()["code"])

    async def stream(self, kind: str, /, **params: Any) -> list[Any]:
        """The events of a whole stream."""
        async with asyncio.timeout(PATIENCE * 2):
            response = await self.post(kind, **params)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return events_in(response.text)

    @asynccontextmanager
    async def open(self, kind: str, /, **params: Any) -> AsyncIterator[AsyncIterator[Any]]:
        """The events as they come; leaving the block closes the connection."""
        async with self.service.stream(
            "POST", "/chatkit", params=self.query, json=operation(kind, **params)
        ) as received:
            yield (known(json.loads(frame.data)) async for frame in received if frame.data is not None)

    async def begin(self, text: str) -> Widget:
        """A new thread, and its first answer."""
        widget = Widget()
        widget.see(*await self.stream("threads.create", input=said(text)))
        return widget

    async def say(self, thread_id: str, text: str) -> Widget:
        widget = Widget()
        widget.see(*await self.stream("threads.add_user_message", thread_id=thread_id, input=said(text)))
        return widget

    async def items(self, thread_id: str, **params: Any) -> list[Any]:
        """A page of them, oldest first."""
        asked = {"limit": 200, "order": "asc"} | params
        page = await self.get("items.list", thread_id=thread_id, **asked)
        Page.model_validate(page)
        ItemsListReq.model_validate({"params": {"thread_id": thread_id, **asked}})
        items = [known_item(item) for item in page["data"]]
        return items if asked["order"] == "asc" else items[::-1]

    async def thread(self, thread_id: str) -> Thread:
        return Thread.model_validate(await self.get("threads.get_by_id", thread_id=thread_id))


async def until(received: AsyncIterator[Any], widget: Widget, text: str) -> None:
    """Read on until the assistant has said this."""
    async with asyncio.timeout(PATIENCE):
        while text not in widget.text:
            widget.see(await anext(received))
