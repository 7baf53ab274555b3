"""What browsers are told not to do with a response, whatever it is the response to."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.headers import GUARDS
from tests.scripted import ScriptedModel
from tests.serving import Client, served

GUARDED = {name.decode(): value.decode() for name, value in GUARDS}

JSON = {"Content-Type": "application/json"}
ORIGIN = {"Origin": "http://localhost:5173"}
ASKED = {"Access-Control-Request-Method": "POST"}

KINDS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/", {}, 200),
    ("GET", "/", {"headers": {"Accept": "text/html"}}, 303),
    ("GET", "/health", {}, 200),
    ("HEAD", "/health", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/openapi.json", {"headers": {"Accept-Encoding": "gzip"}}, 200),
    ("GET", "/playground", {}, 200),
    ("GET", "/docs", {}, 200),
    ("GET", "/static/app.js", {}, 200),
    ("GET", "/static/swagger-ui-bundle.js", {"headers": {"Range": "bytes=0-9"}}, 206),
    ("GET", "/static/nothing.js", {}, 404),
    ("GET", "/no/such/place", {}, 404),
    ("DELETE", "/query", {}, 405),
    ("OPTIONS", "/chat", {"headers": ORIGIN | ASKED}, 200),
    ("OPTIONS", "/chat", {"headers": {"Origin": "https://evil.example", **ASKED}}, 400),
    ("POST", "/sessions", {"json": {"title": "Hi"}}, 201),
    ("POST", "/chat", {"json": {"message": "Hi"}}, 200),
    ("POST", "/chat", {"json": {"message": "Hi", "format": "events"}, "headers": ORIGIN}, 200),
    ("POST", "/chat", {"json": {"message": "Hi"}, "headers": {"Prefer": "respond-async"}}, 202),
    ("POST", "/chat", {"content": b"{", "headers": JSON}, 400),
    ("POST", "/chat", {"content": b"a", "headers": {"Content-Type": "text/plain"}}, 415),
    ("POST", "/chat", {"json": {"message": "x" * 3_000}}, 413),
    ("POST", "/chat", {"json": {}}, 422),
    ("GET", "/doctor/stream?events=1&interval=0", {}, 200),
    ("POST", "/v1/chat/completions", {"json": {"messages": [{"role": "user", "content": "Hi"}], "stream": True}}, 200),
    ("POST", "/v1/chat/completions", {"json": {}}, 400),
    ("POST", "/api/chat", {"json": {"messages": [{"role": "user", "content": "Hi"}]}}, 200),
    ("GET", "/runs/r1", {}, 500),
]


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    async with served(tmp_path, ScriptedModel(), max_body_bytes=2_000) as client:
        monkeypatch.setattr(client.app.state.engine.store, "run", None)  # which breaks what looks for one
        yield client


def guards_of(response: httpx.Response) -> dict[str, str]:
    """Each of them once, as it came."""
    for name in GUARDED:
        assert len(response.headers.get_list(name)) == 1, name
    return {name: response.headers[name] for name in GUARDED}


@pytest.mark.parametrize(("method", "path", "arguments", "status"), KINDS)
async def test_every_response_is_guarded(
    client: Client, method: str, path: str, arguments: dict[str, Any], status: int
) -> None:
    response = await client.request(method, path, **arguments)
    assert response.status_code == status
    found = guards_of(response)
    if path.startswith(("/playground", "/docs", "/static/")) and status < 400:
        policy = found.pop("content-security-policy")
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert response.headers["cross-origin-opener-policy"] == "same-origin"
        assert "camera=()" in response.headers["permissions-policy"]
    assert found == {name: GUARDED[name] for name in found}


async def test_stranger_is_sent_away_with_them(tmp_path: Path) -> None:
    async with served(tmp_path, auth="keys") as client:
        response = await client.get("/sessions")
    assert response.status_code == 401
    assert guards_of(response) == GUARDED


async def test_whoever_asks_too_much_is_sent_away_with_them(tmp_path: Path) -> None:
    async with served(tmp_path, request_rate="1/minute", unlimited_addresses="0") as client:
        await client.get("/sessions")
        for path, status in (("/sessions", 429), ("/runs/r1/events", 200)):
            response = await client.get(path)
            assert response.status_code == status
            assert guards_of(response) == GUARDED


async def test_file_that_has_not_changed_is_confirmed_with_them(client: Client) -> None:
    first = await client.get("/static/app.js")
    again = await client.get("/static/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert guards_of(again) == guards_of(first)
