"""What is too long to be asked, for every client that brings a whole conversation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving import served


def spoken(*said: str) -> list[dict[str, Any]]:
    """Messages of the user's and the model's, in turn, as OpenAI's clients bring them, and AG-UI's."""
    return [
        {"id": str(place), "role": "assistant" if place % 2 else "user", "content": content}
        for place, content in enumerate(said)
    ]


def in_parts(*said: str) -> list[dict[str, Any]]:
    return [
        {"id": turn["id"], "role": turn["role"], "parts": [{"type": "text", "text": turn["content"]}]}
        for turn in spoken(*said)
    ]


BRINGING: dict[str, Callable[..., tuple[str, dict[str, Any]]]] = {
    "messages": lambda *said: ("/api/chat", {"messages": spoken(*said)}),
    "AI SDK": lambda *said: ("/api/chat", {"id": "one", "messages": in_parts(*said)}),
    "completions": lambda *said: ("/v1/chat/completions", {"messages": spoken(*said)}),
    "responses": lambda *said: ("/v1/responses", {"input": spoken(*said)}),
    "AG-UI": lambda *said: ("/ag-ui", {"threadId": "one", "runId": f"run-{len(said[0])}", "messages": spoken(*said)}),
}


@pytest.mark.parametrize("client_of", BRINGING)
async def test_only_what_the_user_says_has_a_longest_message(tmp_path: Path, client_of: str) -> None:
    async with served(tmp_path, max_message_chars=5) as client:
        for said, taken in (("Hi", "A long answer", "So?"), True), (("A long question", "No", "So?"), False):
            path, body = BRINGING[client_of](*said)
            response = await client.post(path, json=body)
            assert response.is_success is taken
            assert ("A message may have 5 characters at most." in response.text) is not taken
