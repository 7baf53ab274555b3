import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sse_starlette.sse import SendTimeoutError
from starlette.types import Message, Receive, Scope, Send

from handlers.middleware import BodyLimitMiddleware, RequestMiddleware
from handlers.wire import lay_wire
from tests.serving import Client, served

# --- ids


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 64])
async def test_request_keeps_the_id_that_it_brings(client: Client, given: str) -> None:
    response = await client.get("/health", headers={"X-Request-Id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "\x1b[31m", "a,b", "é"])
async def test_request_gets_an_id_in_place_of_one_that_is_none(client: Client, given: str) -> None:
    response = await client.get("/health", headers=[(b"X-Request-Id", given.encode("latin-1"))])
    assert response.headers["x-request-id"].startswith("req_")


# --- the log


async def test_request_is_logged_without_what_people_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(tmp_path) as client:
        response = await client.get("/chat", params={"message": "my secret", "session_id": "s"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [line] = [line for line in lines if line["logger"] == "parley.access"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/chat", 200)
    assert (line["session_id"], line["run_id"]) == ("s", response.headers["x-run-id"])
    assert line["request_id"] == response.headers["x-request-id"]
    assert line["seconds"] >= 0
    assert "my secret" not in repr([line for line in lines if line["logger"] != "httpx"])  # which is the test's own


# --- the last net


async def through(app: Any, scope: dict[str, Any] | None = None) -> list[Message]:
    """What a server is told to send."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * 11}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []} | (scope or {})
    lay_wire(scope, send)
    await app(scope, receive, send)
    return sent


async def test_answer_that_breaks_in_the_middle_is_not_begun_again() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    sent = await through(RequestMiddleware(broken))
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_reader_that_stalls_is_no_mistake_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def stalled(scope: Scope, receive: Receive, send: Send) -> None:
        raise SendTimeoutError

    caplog.set_level("INFO", "parley.access")
    assert await through(RequestMiddleware(stalled)) == []
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]


async def test_what_is_no_request_is_passed_on() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await through(RequestMiddleware(BodyLimitMiddleware(app, 1, 1)), {"type": "websocket"})
    assert seen == ["websocket"]


# --- bodies


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b" " * size


async def test_body_over_the_limit_is_refused_whether_it_tells_its_length_or_not(tmp_path: Path) -> None:
    headers = {"Content-Type": "application/json"}
    async with served(tmp_path, max_body_bytes=100) as client:
        for content in (b" " * 98 + b"{}", pieces(50, 50)):
            response = await client.post("/sessions", content=content, headers=headers)
            assert response.status_code in (201, 400)
        contents: list[bytes | AsyncIterator[bytes]] = [b" " * 101, pieces(50, 51), pieces(101)]
        for content in contents:
            response = await client.post("/sessions", content=content, headers=headers)
            assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["x-request-id"]


# --- other origins


@pytest.mark.parametrize(
    ("allowed", "origin", "answer"),
    [
        (None, "http://localhost:5173", "http://localhost:5173"),
        (None, "http://127.0.0.1", "http://127.0.0.1"),
        (None, "https://[::1]:8443", "https://[::1]:8443"),
        (None, "http://localhost.example.org", None),
        (None, "https://example.org", None),
        ("https://chat.example.org, https://b.example.org", "https://b.example.org", "https://b.example.org"),
        ("https://chat.example.org", "http://localhost:5173", None),
        ("*", "https://anywhere.example", "*"),
    ],
)
async def test_pages_of_other_origins_may_ask_if_they_are_allowed(
    tmp_path: Path, allowed: str | None, origin: str, answer: str | None
) -> None:
    async with served(tmp_path, allowed_origins=allowed) as client:
        preflight = await client.options(
            "/chat",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type, idempotency-key, last-event-id, prefer",
            },
        )
        assert preflight.headers.get("access-control-allow-origin") == answer
        assert preflight.is_success == (answer is not None)
        response: httpx.Response = await client.post("/chat", json={"message": "Hi"}, headers={"Origin": origin})
        assert response.headers.get("access-control-allow-origin") == answer
        assert "access-control-allow-credentials" not in {*preflight.headers, *response.headers}
        if answer is not None:
            exposed = response.headers["access-control-expose-headers"].lower().split(", ")
            assert {"location", "x-run-id", "x-session-id", "x-user-id", "x-request-id"} <= set(exposed)


async def test_cookies_come_along_from_pages_that_are_named_and_no_others(tmp_path: Path) -> None:
    named = "https://chat.example.org"
    async with served(tmp_path, allowed_origins=named, allow_credentials=True) as client:
        for origin in (named, "https://chat.example.org.evil.example", "https://evil.example", "null"):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Cookie": "a=b"}
            preflight = await client.options("/chat", headers=asked)
            response = await client.post("/chat", json={"message": "Hi"}, headers={"Origin": origin, "Cookie": "a=b"})
            for answer in (preflight, response):
                # A browser wants both: https://fetch.spec.whatwg.org/#cors-check
                assert (answer.headers.get("access-control-allow-origin") == origin) is (origin == named)
                assert "origin" in answer.headers["vary"].lower()
            assert preflight.is_success is (origin == named)
            assert response.headers["access-control-allow-credentials"] == "true"
