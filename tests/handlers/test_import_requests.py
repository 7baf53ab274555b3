"""Several files, or one that nobody waits for, become documents in a run."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from handlers.formats import FORMATS
from tests.handlers.test_identity import made
from tests.handlers.test_uploads import SHARED, part
from tests.serving import Client, served

ASYNC = {"Prefer": "respond-async"}
STREAM = {"Accept": "text/event-stream"}
TEXT = {"text": "Tea is free.", "title": "Handbook", "collection": "handbook"}
BOTH = [part("1.md"), part("2.md", b"Milk")]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(tmp_path, max_document_bytes=100, max_import_files=4) as client:
        yield client


async def log_of(client: Client, run_id: str, **headers: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of what a run says, when it has ended."""
    stream = await client.get(f"/runs/{run_id}/events?format=events", headers=headers)
    return events_in(stream.text)


def events_in(stream: str) -> list[tuple[str, dict[str, Any]]]:
    records = [record.split("\n") for record in stream.split("\n\n") if "data: " in record]
    return [(event.partition(": ")[2], json.loads(data.partition(": ")[2])) for _, event, data in records]


async def titles(client: Client) -> list[str]:
    return [document["title"] for document in reversed((await client.get("/documents")).json()["documents"])]


async def test_several_files_are_imported_in_a_run(client: Client) -> None:
    files = [part("1.md"), part("2.exe", b"MZ"), part("3.md", b"x" * 101), part("4.txt", b"Tea", "text/plain")]
    response = await client.post("/documents", data=SHARED, files=files)
    run = response.json()
    run_id = run["run_id"]
    assert (response.status_code, response.headers["Location"]) == (202, f"/runs/{run_id}")
    assert (response.headers["X-Run-Id"], "X-Session-Id" in response.headers) == (run_id, False)
    assert (run["kind"], run["events_url"], run["answer_id"]) == ("import", f"/runs/{run_id}/events", None)
    log = await log_of(client, run_id)
    assert [name for name, _ in log] == [
        "run.started", "import.started", "import.document", "import.refused", "import.refused", "import.document",
        "run.completed",
    ]  # fmt: skip
    listed = (await client.get("/documents")).json()["documents"]
    assert log[1][1] == {"files": 4, "bytes": 39 + 2 + 101 + 3}
    assert log[2][1] == {"file": "1.md", "document": listed[1]["document_id"], "chunks": 2, "done": 1, "of": 4}
    assert [(data["file"], data["code"]) for _, data in log[3:5]] == [
        ("2.exe", "unsupported_media_type"), ("3.md", "document_too_large"),
    ]  # fmt: skip
    assert await titles(client) == ["1.md", "4.txt"]
    ended = (await client.get(f"/runs/{run_id}")).json()
    assert (ended["status"], ended["usage"], ended["finish_reason"]) == ("completed", None, "stop")


@pytest.mark.parametrize("form", [False, True])
async def test_one_document_is_imported_in_a_run_by_wish(client: Client, form: bool) -> None:
    body: dict[str, Any] = {"data": SHARED | {"title": "Handbook"}, "files": [part()]} if form else {"json": TEXT}
    response = await client.post("/documents", headers=ASYNC, **body)
    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "respond-async")
    assert (await log_of(client, response.json()["run_id"]))[-1][0] == "run.completed"
    assert await titles(client) == ["Handbook"]


@pytest.mark.parametrize("form", [False, True])
async def test_import_is_streamed_at_once_by_wish(client: Client, form: bool) -> None:
    body: dict[str, Any] = {"data": SHARED, "files": BOTH} if form else {"json": TEXT}
    response = await client.post("/documents", headers=STREAM, **body)
    assert (response.status_code, "X-Session-Id" in response.headers) == (200, False)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    run_id = response.headers["X-Run-Id"]
    assert response.headers["Location"] == f"/runs/{run_id}/events"
    names = [name for name, _ in events_in(response.text)]
    count = 2 if form else 1
    assert names == ["run.started", "import.started", *["import.document"] * count, "run.completed"]
    last = await client.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": f"{run_id}.{count + 2}"})
    assert last.status_code == 204


async def test_import_that_is_followed_as_an_answer_begins_and_ends(client: Client) -> None:
    run_id = (await client.post("/documents", data=SHARED, files=BOTH)).json()["run_id"]
    await log_of(client, run_id)
    for name in FORMATS:
        stream = await client.get(f"/runs/{run_id}/events?format={name}")
        assert (stream.status_code, f"{run_id}.4" in stream.text) == (200, True)
    assert "data: [DONE]" in (await client.get(f"/runs/{run_id}/events")).text
    view = await client.get(f"/v1/responses/{run_id.replace('run_', 'resp_')}")
    assert (view.status_code, view.json()["status"], view.json()["output"]) == (200, "completed", [])


async def test_same_key_stands_for_one_import(client: Client) -> None:
    key = {"Idempotency-Key": "once"}
    first = await client.post("/documents", data=SHARED, files=BOTH, headers=key)
    again = await client.post("/documents", data=SHARED, files=BOTH, headers=key | STREAM)
    assert again.headers["X-Run-Id"] == first.json()["run_id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await client.post("/documents", data=SHARED, files=[*BOTH, part()], headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert await titles(client) == ["1.md", "2.md"]


async def test_wrong_key_is_refused(client: Client) -> None:
    for wanted in ({}, ASYNC):
        refused = await client.post("/documents", json=TEXT, headers={"Idempotency-Key": "a b"} | wanted)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def test_import_and_what_it_makes_are_the_users(tmp_path: Path) -> None:
    async with served(tmp_path, auth="keys") as client:
        front = await made(client, "front")
        ann, bob = front | {"X-User-Id": "ann"}, front | {"X-User-Id": "bob"}
        run_id = (await client.post("/documents", data=SHARED, files=BOTH, headers=ann)).json()["run_id"]
        assert (await log_of(client, run_id, **ann))[-1][0] == "run.completed"
        for path in (f"/runs/{run_id}", f"/runs/{run_id}/events"):
            assert (await client.get(path, headers=bob)).status_code == 404
        assert (await client.post(f"/runs/{run_id}/cancel", headers=bob)).status_code == 404
        assert (await client.get("/documents", headers=bob)).json()["documents"] == []
        mine = (await client.get("/documents", headers=ann)).json()["documents"]
        assert [document["user_id"] for document in mine] == ["ann", "ann"]
        lines = (await client.get("/users/ann/export", headers=ann)).text.splitlines()
        assert sum('"kind":"import"' in line for line in lines) == 1
        assert (await client.delete("/users/ann", headers=ann)).status_code == 204
        assert (await client.get(f"/runs/{run_id}", headers=front)).status_code == 404


async def test_import_is_no_conversation_and_no_answer(client: Client) -> None:
    run = (await client.post("/documents", data=SHARED, files=BOTH)).json()
    run_id, session_id = run["run_id"], run["session_id"]
    await log_of(client, run_id)
    assert (await client.get("/sessions")).json()["sessions"] == []
    assert (await client.get(f"/sessions/{session_id}")).status_code == 404
    assert (await client.get(f"/api/chat/{session_id}/stream")).status_code == 204
    said = await client.post("/chat", json={"message": "Hi", "session_id": session_id})
    assert (said.status_code, said.json()["code"]) == (404, "not_found")
    again = await client.post(f"/runs/{run_id}/retry")
    assert (again.status_code, again.json()["code"]) == (422, "invalid_request")
    cancelled = await client.post(f"/runs/{run_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "completed")


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "once"}])
async def test_request_that_is_repeated_goes_on_behind_what_was_seen(client: Client, key: dict[str, str]) -> None:
    asked: dict[str, Any] = {"data": SHARED, "files": BOTH}
    first = await client.post("/documents", **asked, headers=STREAM | key)
    run_id = first.headers["X-Run-Id"]
    names = [name for name, _ in events_in(first.text)]
    for seq in range(1, 4):
        seen = {"Last-Event-ID": f"{run_id}.{seq}"}
        again = await client.post("/documents", **asked, headers=STREAM | key | seen)
        assert (again.headers["X-Run-Id"], again.headers["Idempotency-Replayed"]) == (run_id, "true")
        assert [name for name, _ in events_in(again.text)][1:] == names[seq + 1 :]
    last = {"Last-Event-ID": f"{run_id}.4"}
    assert (await client.post("/documents", **asked, headers=STREAM | key | last)).status_code == 204
    waiting = await client.post("/documents", **asked, headers=ASYNC | last)
    assert (waiting.status_code, waiting.json()["run_id"]) == (202, run_id)
    assert await titles(client) == ["1.md", "2.md"]


@pytest.mark.parametrize(
    ("cursor", "status", "code"),
    [
        ("{chat}.1", 409, "cursor_mismatch"),
        ("{run}.9", 409, "cursor_ahead"),
        ("run_unknown.1", 404, "not_found"),
        ("nonsense", 400, "invalid_cursor"),
    ],
)
async def test_cursor_that_leads_nowhere_imports_nothing(client: Client, cursor: str, status: int, code: str) -> None:
    run = (await client.post("/documents", json=TEXT, headers=STREAM)).headers["X-Run-Id"]
    chat = (await client.post("/chat", json={"message": "Hi"})).headers["X-Run-Id"]
    headers = STREAM | {"Last-Event-ID": cursor.format(run=run, chat=chat)}
    refused = await client.post("/documents", json=TEXT, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert await titles(client) == ["Handbook"]


async def test_cursor_of_anothers_import_leads_nowhere(tmp_path: Path) -> None:
    async with served(tmp_path, auth="keys") as client:
        front = await made(client, "front")
        ann, bob = front | {"X-User-Id": "ann"}, front | {"X-User-Id": "bob"}
        run_id = (await client.post("/documents", json=TEXT, headers=STREAM | ann)).headers["X-Run-Id"]
        seen = STREAM | {"Last-Event-ID": f"{run_id}.1"}
        assert (await client.post("/documents", json=TEXT, headers=seen | bob)).status_code == 404
        assert (await client.post("/documents", json=TEXT, headers=seen | ann)).status_code == 200


async def test_import_for_which_there_is_no_stream_is_begun_and_not_refused(tmp_path: Path) -> None:
    async with served(tmp_path, max_streams=1) as client:
        leave = client.app.state.limits.seat(None, None)
        response = await client.post("/documents", data=SHARED, files=BOTH, headers=STREAM)
        run_id = response.json()["run_id"]
        assert (response.status_code, response.headers["Location"]) == (202, f"/runs/{run_id}")
        again = await client.post("/documents", json=TEXT, headers=STREAM | {"Last-Event-ID": f"{run_id}.0"})
        assert (again.status_code, again.json()["code"]) == (503, "service_full")
        leave()
        assert (await log_of(client, run_id))[-1][0] == "run.completed"
        assert await titles(client) == ["1.md", "2.md"]


async def test_imports_count_as_runs(tmp_path: Path) -> None:
    async with served(tmp_path, run_rate="1/hour", unlimited_addresses="0") as client:
        assert (await client.post("/documents", data=SHARED, files=BOTH)).status_code == 202
        refused = await client.post("/documents", data=SHARED, files=BOTH)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert (await client.post("/documents", data=SHARED, files=[part()])).status_code == 201
