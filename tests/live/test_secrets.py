"""Keys, and what people and models say, are in no log, no error, no metric and no trace, however things go wrong."""

import asyncio
import json
import re
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import jwt
import pytest

from tests.live.nursery import SERVER
from tests.live.otlp import Receiver
from tests.live.service import PATIENCE, Service
from tests.upstream import End, Reply, Upstream, calling, chunk, completion, done, finish, refusal, reply, thought

UPSTREAM_KEY = "sk-canary-of-the-upstream-7f3a"
JWT_SECRET = "canary-of-the-jwt-secret-" * 3
PROMPT = "canary-of-the-prompt"
ANSWER = "canary-of-the-answer"
TITLE = "canary-of-the-title"
SAID = (PROMPT, ANSWER, TITLE, "canary-of")

ECHOED = {
    "error": {
        "message": f"Incorrect API key provided: {UPSTREAM_KEY}. You asked {PROMPT}",
        "type": PROMPT,
        "code": UPSTREAM_KEY,
        "param": {"authorization": f"Bearer {UPSTREAM_KEY}"},
    }
}

WAYS: dict[str, Reply] = {
    "well": completion(ANSWER),
    "401": refusal(401, ECHOED),
    "403": refusal(403, ECHOED),
    "400": refusal(400, ECHOED),
    "429": refusal(429, ECHOED, retry_after="0"),
    "500": refusal(500, ECHOED),
    "a page": reply(f"<html>{UPSTREAM_KEY} {PROMPT}</html>".encode(), headers={"Content-Type": "text/html"}),
    "an error in the stream": reply(chunk(ANSWER), f"data: {json.dumps(ECHOED)}\n\n".encode()),
    "what cannot be read": reply(chunk(ANSWER), f"data: {{{UPSTREAM_KEY} {PROMPT}\n\n".encode()),
    "no HTTP": reply(headers={f"{UPSTREAM_KEY} {PROMPT}": PROMPT}),
    "cut": reply(thought(ANSWER), chunk(ANSWER), End.ABORT),
    "silent": reply(chunk(ANSWER), End.HOLD),
    "never begun": reply(End.HOLD),
    "a call that fails": calling("call_1", "faulty", {"text": ANSWER}),
    "behind it": completion(ANSWER),
    "a call that does not fit": calling("call_2", "faulty", {"txet": ANSWER}),
    "behind that": completion(ANSWER),
    "a call of nothing": calling("call_3", f"unknown {ANSWER}", {"text": ANSWER}),
    "behind this": completion(ANSWER),
    "an odd reason": reply(chunk(ANSWER), finish("stop"), done()),
}
STEPS = ("behind it", "behind that", "behind this")


NONE: Mapping[str, str] = {}

BAD_BODIES = [
    f'{{"message": "{PROMPT}',
    f'{{"message": "{PROMPT}", {PROMPT}',
    f'{{"{PROMPT}": "{PROMPT}", "message": ["{PROMPT}"], "messages": "{PROMPT}", "input": {{"a": "{PROMPT}"}}}}',
    f'{{"message": "{PROMPT}", "session_id": "{PROMPT} ", "format": "{PROMPT} ", "model": 1, "prompt": 1}}',
    f'{{"messages": [{{"role": "user", "content": {{"x": "{PROMPT}"}}}}], "temperature": "{PROMPT}"}}',
    f'["{PROMPT}"]',
]


class Kept:
    """All bodies and headers of errors and metrics; what good answers say is theirs to say."""

    def __init__(self, service: Service, who: dict[str, str]) -> None:
        self.text = ""
        self._service = service
        self._who = who

    async def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        response = await self._service.client.request(method, path, headers=self._who | (headers or {}), **more)
        failed = re.findall(r"event: (?:run\.failed|error)\ndata: .*|\"error\": ?\{.*", response.text)
        self.text += "\n".join(failed)
        if response.status_code >= 400:
            self.text += f"{response.headers} {response.text}\n"
        return response


async def new_key(service: Service) -> str:
    place = service.settings["DATABASE_URL"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), "keys", "--database-url", place, "add", "canary", "--admin",
        cwd=service.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    return said.decode().strip()


def token(**claims: object) -> str:
    return jwt.encode({"sub": "ann", "exp": time.time() + 600} | claims, JWT_SECRET, "HS256")


async def asks_badly(kept: Kept, run: str, ticket: str, tokens: list[str]) -> None:
    """What is refused, with something in it that nobody else may see."""
    for shown in tokens:
        bearer = {"Authorization": f"Bearer {shown}"}
        for path in ("/sessions", f"/sessions?user_id=bob&token={shown}", f"/runs/{run}/events?ticket={shown}"):
            await kept.ask("GET", path, headers=bearer)
        await kept.ask("GET", "/v1/models", headers=bearer)
        await kept.ask("GET", "/v1/models", headers={"Authorization": f"Basic {shown}"})
    for place in ("/runs/other/events", f"/runs/{run}", "/sessions"):
        await kept.ask("GET", f"{place}?ticket={ticket}", headers={"Authorization": ""})
    told = {"Content-Type": "application/json"}
    for path in ("/chat", "/query", "/api/chat", "/ag-ui", "/chatkit", "/v1/chat/completions", "/v1/responses"):
        for body in BAD_BODIES:
            await kept.ask("POST", path, content=body.encode(), headers=told)
        await kept.ask("POST", path, content=f"message={PROMPT}".encode(), headers={"Content-Type": "text/plain"})
        await kept.ask("POST", path, content=b'{"message": "%b\xff"}' % PROMPT.encode(), headers=told)
    await kept.ask("POST", "/sessions", json={"title": TITLE * 20})
    await kept.ask("POST", "/sessions", json={"metadata": {"a": PROMPT * 2_000}})
    await kept.ask("GET", "/search", params={"q": f'"{PROMPT} * AND ('})
    await kept.ask("GET", "/chat", params={"message": PROMPT, "format": "none"})


def logged(service: Service) -> str:
    return service.log.read_text(errors="replace")


@pytest.fixture(params=["sqlite", "postgres"])
def kept_in(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"DATABASE_URL": request.getfixturevalue("url")} if request.param == "postgres" else {}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_no_secret_leaves_by_a_log_an_error_a_metric_or_a_trace(
    tmp_path: Path, kept_in: dict[str, str], stack: AsyncExitStack
) -> None:
    receiver = await stack.enter_async_context(Receiver(tmp_path))
    upstream = await stack.enter_async_context(Upstream(*WAYS.values()))
    settings = {
        "AUTH": "jwt", "JWT_SECRET": JWT_SECRET, "ANONYMOUS_USERS": "true", "LOG_LEVEL": "DEBUG",
        "BASE_URL": upstream.base_url, "OPENAI_API_KEY": UPSTREAM_KEY, "MODEL_NAME": "scripted", "MODEL_RETRIES": "0",
        "REQUEST_TIMEOUT": "1", "TOOLS": "tests.live.faulty_tool",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100",
    }  # fmt: skip
    service = await stack.enter_async_context(Service(tmp_path, **settings | kept_in))
    key, mine, late = await new_key(service), token(), token(exp=time.time() - 600)
    anonymous = (await service.client.post("/users/anonymous")).json()["token"]
    kept = Kept(service, {"Authorization": f"Bearer {mine}"})
    run = ticket = ""
    for way in WAYS:
        if way not in STEPS:
            said = {"message": PROMPT, "session_id": "one", "format": "events"}
            response = await kept.ask("POST", "/chat", json=said)
            assert response.status_code == 200, (way, response.text)
            run = response.headers["x-run-id"]
            followed = (await kept.ask("POST", f"/runs/{run}/ticket")).json()["events_url"]
            [ticket] = parse_qs(urlsplit(followed).query)["ticket"]
            assert (await kept.ask("GET", followed)).status_code == 200
            await kept.ask("GET", f"/runs/{run}")
    assert len(upstream.requests) == len(WAYS)
    await kept.ask("PATCH", "/sessions/one", json={"title": TITLE})
    wrong = [f"{right}x" for right in (mine, key, anonymous)] + [jwt.encode({"sub": "ann"}, "x" * 32, "HS256"), late]
    await asks_badly(kept, run, ticket, wrong)
    kept.text += (await kept.ask("GET", "/metrics", headers={"Authorization": f"Bearer {key}"})).text
    await service.terminate()

    parts = [part for whole in (mine, anonymous, ticket, *wrong) for part in whole.split(".") if len(part) > 8]
    assert "faulty" in logged(service)
    assert "ValueError" in logged(service)
    for text in (logged(service), kept.text, receiver.bytes.decode("latin-1")):
        assert len(text) > 5_000
        assert [secret for secret in (*SAID, JWT_SECRET, UPSTREAM_KEY, key, *parts) if secret in text] == []


async def breaks(url: str, database: Path) -> None:
    """From now on the database takes no message, and quotes what it was to take: nobody foresaw that."""
    if url:
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER TABLE messages ADD CONSTRAINT broken CHECK (role IS NULL) NOT VALID")
        await connection.close()
        return
    with closing(sqlite3.connect(database)) as db:
        quoting = f"SELECT RAISE(ABORT, 'this row is wrong: {PROMPT}')"
        db.execute(f"CREATE TRIGGER broken BEFORE INSERT ON messages BEGIN {quoting}; END")


async def mended(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER TABLE messages DROP CONSTRAINT IF EXISTS broken")
    await connection.close()


async def test_what_breaks_inside_is_told_by_its_place_and_not_by_its_words(
    tmp_path: Path, kept_in: dict[str, str], stack: AsyncExitStack
) -> None:
    upstream = await stack.enter_async_context(Upstream(completion(ANSWER)))
    settings = {"BASE_URL": upstream.base_url, "OPENAI_API_KEY": UPSTREAM_KEY, "LOG_LEVEL": "DEBUG"}
    service = await stack.enter_async_context(Service(tmp_path, **settings | kept_in))
    url = kept_in.get("DATABASE_URL", "")
    kept = Kept(service, {})
    said = {"message": PROMPT, "session_id": "one"}
    assert (await kept.ask("POST", "/chat", json=said)).status_code == 200
    if url:
        stack.push_async_callback(mended, url)
    await breaks(url, service.database)
    for _ in range(2):
        response = await kept.ask("POST", "/chat", json=said)
        assert (response.status_code, response.json()["code"]) == (500, "internal")
    await service.terminate()
    log = logged(service)
    assert ("CheckViolationError 23514" if url else "IntegrityError SQLITE_CONSTRAINT_TRIGGER") in log
    for text in (log, kept.text):
        assert [secret for secret in (*SAID, UPSTREAM_KEY) if secret in text] == []
