from pathlib import Path
from typing import Any

import pytest

from tests.serving import served_as_set

ASKED = {"id": "one", "messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi there"}]}]}


@pytest.mark.parametrize("trigger", ["submit-message", "regenerate-message"])
async def test_same_request_is_answered_whatever_has_changed_since(tmp_path: Path, trigger: str) -> None:
    asked: Any = {"json": ASKED | {"trigger": trigger, "model": "echo"}, "headers": {"Idempotency-Key": "key"}}
    async with served_as_set(tmp_path, model_name="echo", stream_delay=0) as client:
        await client.post("/api/chat", json=ASKED)
        first = await client.post("/api/chat", **asked)
        assert "Hi " in first.text
    settings = {"base_url": "http://127.0.0.1:9/v1", "model_name": "another", "max_message_chars": 3}
    async with served_as_set(tmp_path, **settings) as client:
        again = await client.post("/api/chat", **asked)
        assert (again.text, again.headers["idempotency-replayed"]) == (first.text, "true")
        other = await client.post("/api/chat", json=asked["json"] | {"id": "two"}, headers=asked["headers"])
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
