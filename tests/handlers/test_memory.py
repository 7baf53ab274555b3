"""Summaries and titles as clients see them, made by the echo model."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE
from tests.remembering import Minds, padded
from tests.scripted import STOP
from tests.serving import Client, served, served_as_set


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Client]:
    """With so small a window that the second answer has the first one folded into a summary."""
    async with served_as_set(tmp_path, stream_delay=0, context_tokens=120, titles=True) as client:
        yield client


async def say(client: Client, text: str) -> dict[str, Any]:
    response = await client.post("/chat", json={"message": padded(text), "session_id": "s", "stream": False})
    assert response.status_code == 200
    return dict(response.json())


async def session_with(client: Client, member: str) -> dict[str, Any]:
    """The session, once it has this: the way that every client learns of it."""
    async with asyncio.timeout(PATIENCE):
        while not (session := (await client.get("/sessions/s")).json())[member]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return dict(session)


async def test_session_shows_its_title_and_the_summary_of_its_beginning(echo: Client) -> None:
    first = await say(echo, "My name is Ann")
    session = await session_with(echo, "title")
    assert session["title"].startswith("My name is Ann")
    assert session["summary"] is None
    await say(echo, "Two")
    session = await session_with(echo, "summary")
    assert (session["message_count"], session["active_run"]) == (4, None)
    summary = session["summary"]
    assert summary.keys() == {"text", "up_to", "run_id", "model", "created_at"}
    assert summary["text"].startswith("My name is Ann")
    assert summary["up_to"] == first["answer_id"]
    run = (await echo.get(f"/runs/{summary['run_id']}")).json()
    assert (run["kind"], run["status"], run["answer_id"]) == ("summary", "completed", None)
    assert (run["message_id"], run["model"], run["finished_at"]) == (summary["up_to"], "echo", summary["created_at"])
    assert run["usage"]["output_tokens"]
    messages = (await echo.get("/sessions/s/messages?limit=200")).json()["messages"]
    assert summary["run_id"] not in [message["run_id"] for message in messages]
    used = (await echo.get("/usage?by=session")).json()["usage"]
    assert used[0]["runs"] == 4
    stream = await echo.get(f"/runs/{summary['run_id']}/events", params={"format": "events"})
    assert '"answer_id": null' in stream.text
    assert "event: run.completed" in stream.text


async def test_run_beside_the_conversation_is_refused_where_an_answer_is_meant(echo: Client) -> None:
    answer = await say(echo, "My name is Ann")
    assert answer["kind"] == "answer"
    await say(echo, "Two")
    run_id = (await session_with(echo, "summary"))["summary"]["run_id"]
    refused = await echo.post(f"/runs/{run_id}/retry")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    seen = {"Last-Event-ID": f"{run_id}.1"}
    refused = await echo.post("/chat", json={"message": padded("My name is Ann"), "session_id": "s"}, headers=seen)
    assert (refused.status_code, refused.json()["code"]) == (409, "cursor_mismatch")


async def test_retry_does_not_attach_to_a_title(tmp_path: Path) -> None:
    """Both read the same message, where that is an answer to whose calls the client has brought the results."""
    async with served_as_set(tmp_path, stream_delay=0, titles=True) as client:
        look = {"type": "function", "name": "look", "parameters": None}
        asked = {"conversation": "s", "tools": [look], "input": "/look {}"}
        await client.post("/v1/responses", json=asked)
        await session_with(client, "title")
        with closing(sqlite3.connect(tmp_path / "chat.db")) as database:
            [(title, read)] = database.execute("SELECT id, message_id FROM runs WHERE kind = 'title'").fetchall()
        asked["input"] = [{"type": "function_call_output", "call_id": "call_look", "output": "Sun"}]
        answered = (await client.post("/v1/responses", json=asked)).headers["x-run-id"]
        assert (await client.get(f"/runs/{answered}")).json()["message_id"] == read
        refused = await client.post(f"/runs/{answered}/retry", headers={"Last-Event-ID": f"{title}.1"})
        assert (refused.status_code, refused.json()["code"]) == (409, "cursor_mismatch")


async def test_a_question_is_its_own_title(tmp_path: Path) -> None:
    minds = Minds(titles=["Never", STOP])
    async with served(tmp_path, minds, titles=True) as client:
        await client.post("/query", json={"prompt": "Why is the  sky blue?"})
        [session] = (await client.get("/sessions")).json()["sessions"]
        assert session["title"] == "Why is the sky blue?"
        await client.post("/query", json={"prompt": " \n"})
    assert len(minds.titles.requests) <= 1


async def test_service_tells_whether_it_makes_titles(tmp_path: Path) -> None:
    async with served(tmp_path, titles=True) as client:
        assert (await client.get("/")).json()["titles"] is True
