"""One conversation across the protocols: each sees what was said through the others."""

import asyncio
import json
from typing import Any

from openai import AsyncOpenAI

from tests.live.chatkit import Chat
from tests.live.conftest import Serve
from tests.live.service import PATIENCE, read_all, text_of
from tests.upstream import Upstream, chunk, completion, reply
from tests.widget import text_of as text_of_items

AG_UI = "/ag-ui"
UI = "/api/chat"


def data(text: str) -> list[Any]:
    """The JSON of a stream's data lines."""
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


async def test_conversation_goes_on_in_every_protocol_and_is_stopped_in_another(serve: Serve) -> None:
    gate = asyncio.Event()
    replies = (
        *(completion(f"{word} ", "it is.") for word in ("One", "Two", "Three", "Four", "Five")),
        reply(chunk("Half "), gate),
    )
    async with Upstream(*replies) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        client = service.client
        async with client.stream("POST", "/chat", json={"message": "one", "session_id": "shared"}) as plain:
            assert text_of(await read_all(plain)) == "One it is."

        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any", timeout=PATIENCE) as openai:
            completed = await openai.chat.completions.create(
                model="scripted",
                messages=[{"role": "user", "content": "two"}],
                extra_headers={"X-Session-Id": "shared"},
            )
            assert completed.choices[0].message.content == "Two it is."

            agent = {"threadId": "shared", "runId": "r1", "messages": [{"id": "1", "role": "user", "content": "three"}]}
            events = data((await client.post(AG_UI, json=agent)).text)
            assert "".join([event.get("delta", "") for event in events]) == "Three it is."

            message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "four"}]}
            chat = {"id": "shared", "messages": [message], "trigger": "submit-message"}
            parts = data((await client.post(UI, json=chat)).text)
            assert "".join([part["delta"] for part in parts if part["type"] == "text-delta"]) == "Four it is."

            widget = await Chat(service).say("shared", "five")
            assert widget.text == "Five it is."

            response = await openai.responses.create(
                model="scripted", input="six", conversation="shared", background=True
            )
            await upstream.request(5)
            async with service.stream("GET", "/sessions/shared/events") as watched:
                while (await anext(watched)).data is None:
                    pass
                stopped = await openai.responses.cancel(response.id)
                assert stopped.status == "cancelled"
                async with asyncio.timeout(PATIENCE):
                    assert [frame.event async for frame in watched][-1] == "run.cancelled"

        asked = (await upstream.request(5)).body["messages"]
        assert [turn["content"] for turn in asked] == [
            "one", "One it is.", "two", "Two it is.", "three", "Three it is.", "four", "Four it is.",
            "five", "Five it is.", "six",
        ]  # fmt: skip
        stored = (await client.get("/sessions/shared/messages")).json()["messages"]
        assert [turn["content"] for turn in stored] == [*[turn["content"] for turn in asked], "Half "]
        assert stored[-1]["status"] == "cancelled"
        assert text_of_items(await Chat(service).items("shared")) == "".join(
            [turn["content"] for turn in stored if turn["role"] == "assistant"]
        )
