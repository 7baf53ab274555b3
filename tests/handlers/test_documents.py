"""Documents come in, are listed, and go."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chat.documents import Chunk
from handlers.limits import READ_AT_ONCE, READ_EACH
from knowledge.reading import Reader
from tests.handlers.test_identity import made
from tests.patience import soon
from tests.serving import Client, served, served_as_set

GUIDE = {"text": "# Hours\n\nFrom nine.\n\n# Prices\n\nNothing.", "title": "Guide", "collection": "handbook"}
MARKDOWN = GUIDE | {"media_type": "text/markdown; charset=utf-8"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(tmp_path, max_document_bytes=100, max_user_documents=2) as client:
        yield client


async def test_document_is_taken_listed_and_deleted(client: Client) -> None:
    response = await client.post("/documents", json=MARKDOWN)
    document = response.json()
    assert (response.status_code, response.headers["Location"]) == (201, f"/documents/{document['document_id']}")
    assert document.pop("created_at").endswith("Z")
    place = f"/documents/{document.pop('document_id')}"
    assert document == {
        "user_id": None,
        "collection": "handbook",
        "title": "Guide",
        "media_type": "text/markdown",
        "bytes": len(GUIDE["text"]),
        "chunks": 2,
        "embedded": 0,
    }
    assert (await client.get(place)).json() == response.json()
    for query in ("", "?collection=handbook", "?user_id=ann"):
        assert (await client.get(f"/documents{query}")).json() == {"documents": [response.json()], "next": None}
    assert (await client.get("/documents?collection=other")).json() == {"documents": [], "next": None}
    assert (await client.delete(place)).status_code == 204
    for gone in (await client.get(place), await client.delete(place)):
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    assert (await client.get("/documents")).json()["documents"] == []


async def test_pages_of_the_list_lead_to_its_end(client: Client) -> None:
    for _ in range(2):
        await client.post("/documents", json=GUIDE)
    first = (await client.get("/documents?limit=1")).json()
    second = (await client.get(f"/documents?limit=1&after={first['next']}")).json()
    assert (len(first["documents"]), len(second["documents"]), second["next"]) == (1, 1, None)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"text": ""}, 422, "document_empty"),
        ({"text": " \n\t "}, 422, "document_empty"),
        ({"text": "<script>x</script>", "media_type": "text/html"}, 422, "document_empty"),
        ({"text": "ü" * 51}, 413, "document_too_large"),
        ({"text": "a\0b"}, 422, "document_unreadable"),
        ({"title": "a\0b"}, 422, "document_unreadable"),
        ({"text": "<![nothing[", "media_type": "text/html"}, 422, "document_unreadable"),
        ({"media_type": "application/pdf"}, 415, "unsupported_media_type"),
        ({"media_type": "image/png"}, 415, "unsupported_media_type"),
        ({"media_type": ""}, 415, "unsupported_media_type"),
        ({"title": ""}, 422, "invalid_request"),
        ({"collection": "a/b"}, 422, "invalid_request"),
        ({"collection": "handbook\n"}, 422, "invalid_request"),
        ({"text": None}, 422, "invalid_request"),
    ],
)
async def test_what_is_no_document_is_refused(client: Client, changes: dict[str, Any], status: int, code: str) -> None:
    response = await client.post("/documents", json=GUIDE | changes)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert (await client.get("/documents")).json()["documents"] == []


async def test_other_encodings_and_bodies_are_refused(client: Client) -> None:
    json = {"Content-Type": "application/json"}
    for content in ('{"text": "Zürich"}'.encode("latin-1"), b'{"text": "\\ud83d"}'):
        broken = await client.post("/documents", content=content, headers=json)
        assert (broken.status_code, broken.json()["code"]) == (400, "invalid_json")
    plain = await client.post("/documents", content=b"tea", headers={"Content-Type": "text/plain"})
    assert (plain.status_code, plain.json()["code"]) == (415, "unsupported_media_type")


async def test_wrong_cursor_is_refused_whatever_is_sent(client: Client) -> None:
    refused = await client.post("/documents", json=GUIDE, headers={"Last-Event-ID": "nonsense"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor")
    assert (await client.get("/documents")).json()["documents"] == []


async def test_pdf_is_no_text_in_json(client: Client) -> None:
    refused = await client.post("/documents", json=GUIDE | {"media_type": "application/pdf"})
    assert "application/pdf is sent as a file" in refused.json()["detail"]
    other = await client.post("/documents", json=GUIDE | {"media_type": "image/png"})
    assert "sent as a file" not in other.json()["detail"]


async def test_so_many_documents_may_be_there(client: Client) -> None:
    for _ in range(2):
        assert (await client.post("/documents", json=GUIDE)).status_code == 201
    refused = await client.post("/documents", json=GUIDE)
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_documents")
    assert (await client.post("/documents", json=GUIDE | {"user_id": "ann"})).status_code == 201


KEY = {"Idempotency-Key": "one"}


async def test_document_that_is_sent_again_with_its_key_is_there_once(client: Client) -> None:
    first = await client.post("/documents", json=MARKDOWN, headers=KEY)
    again = await client.post("/documents", json=MARKDOWN, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len((await client.get("/documents")).json()["documents"]) == 1
    other = await client.post("/documents", json=MARKDOWN | {"text": "Else."}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    await client.delete(first.headers["Location"])
    anew = await client.post("/documents", json=MARKDOWN | {"text": "Else."}, headers=KEY)
    assert anew.headers["Location"] != first.headers["Location"]
    assert "Idempotency-Replayed" not in anew.headers


async def test_document_that_is_sent_twice_at_once_is_there_once(client: Client) -> None:
    sent = [client.post("/documents", json=GUIDE, headers=KEY) for _ in range(4)]
    answers = await asyncio.gather(*sent)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["document_id"] for answer in answers}) == 1
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers].count(None) == 1
    assert len((await client.get("/documents")).json()["documents"]) == 1


async def test_same_key_stands_for_one_document_however_it_is_delivered(client: Client) -> None:
    wish = {"Prefer": "respond-async"}
    first = await client.post("/documents", json=GUIDE, headers=KEY)
    again = await client.post("/documents", json=GUIDE, headers=KEY | wish)
    assert (again.status_code, again.json()) == (201, first.json())
    other = {"Idempotency-Key": "two"}
    imported = await client.post("/documents", json=MARKDOWN, headers=other | wish)
    again = await client.post("/documents", json=MARKDOWN, headers=other)
    assert (again.status_code, again.json()["run_id"]) == (202, imported.json()["run_id"])


async def test_key_that_is_used_for_both_at_once_stands_for_one(client: Client) -> None:
    kinds: tuple[dict[str, str], ...] = ({}, {"Prefer": "respond-async"})
    sent = [client.post("/documents", json=GUIDE, headers=KEY | kind) for kind in kinds * 3]
    answers = await asyncio.gather(*sent)
    assert {answer.status_code for answer in answers} <= {201, 202, 422}
    [run_id] = {answer.json()["run_id"] for answer in answers if answer.status_code == 202} or {None}
    if run_id is not None:
        await soon(client.get(f"/runs/{run_id}/events"))
    assert len((await client.get("/documents")).json()["documents"]) == 1


async def test_so_many_documents_are_read_while_their_senders_wait(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, gate = asyncio.Semaphore(0), asyncio.Event()
    chunks = Reader.chunks

    async def held(self: Reader, data: bytes, media_type: str) -> Sequence[Chunk]:
        reading.release()
        await gate.wait()
        return await chunks(self, data, media_type)

    monkeypatch.setattr(Reader, "chunks", held)
    waiting = [asyncio.create_task(client.post("/documents", json=GUIDE)) for _ in range(READ_AT_ONCE)]
    for _ in waiting:
        await soon(reading.acquire())
    refused = await client.post("/documents", json=GUIDE)
    assert (refused.status_code, refused.json()["code"]) == (503, "service_full")
    assert "retry-after" in refused.headers
    gate.set()
    await soon(asyncio.gather(*waiting))
    assert (await client.post("/documents", json=GUIDE | {"user_id": "ann"})).status_code == 201


async def test_a_client_has_so_many_documents_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, gate = asyncio.Semaphore(0), asyncio.Event()

    async def held(self: Reader, data: bytes, media_type: str) -> Sequence[Chunk]:
        reading.release()
        await gate.wait()
        return [Chunk("all of it", "Tea.")]

    monkeypatch.setattr(Reader, "chunks", held)
    async with served(tmp_path, unlimited_addresses="0") as client:
        waiting = [asyncio.create_task(client.post("/documents", json=GUIDE)) for _ in range(READ_EACH)]
        for _ in waiting:
            await soon(reading.acquire())
        refused = await client.post("/documents", json=GUIDE)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        gate.set()
        assert {answer.status_code for answer in await soon(asyncio.gather(*waiting))} == {201}


async def test_repeated_document_costs_nothing_and_a_new_one_counts(tmp_path: Path) -> None:
    async with served(tmp_path, unlimited_addresses="0", request_rate="1/hour") as client:
        first = await client.post("/documents", json=GUIDE, headers=KEY)
        again = await client.post("/documents", json=GUIDE, headers=KEY)
        assert (first.status_code, again.json()) == (201, first.json())
        refused = await client.post("/documents", json=MARKDOWN)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")


async def test_keys_of_documents_are_their_users_own(tmp_path: Path) -> None:
    async with served(tmp_path, auth="keys") as client:
        front = await made(client, "front")
        ids = set()
        for user in ("ann", "bob"):
            response = await client.post("/documents", json=GUIDE, headers=front | KEY | {"X-User-Id": user})
            assert (response.status_code, response.json()["user_id"]) == (201, user)
            ids.add(response.json()["document_id"])
        assert len(ids) == 2
        wrong = await client.post("/documents", json=GUIDE, headers=front | {"Idempotency-Key": ""})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")


async def test_shared_documents_are_read_by_all_and_deleted_by_the_operator(tmp_path: Path) -> None:
    async with served(tmp_path, auth="keys") as client:
        front = await made(client, "front")
        ann, bob = front | {"X-User-Id": "ann"}, front | {"X-User-Id": "bob"}
        shared = (await client.post("/documents", json=GUIDE, headers=front)).headers["Location"]
        own = await client.post("/documents", json=GUIDE, headers=ann)
        assert own.json()["user_id"] == "ann"
        assert (await client.get(shared, headers=bob)).status_code == 200
        refused = await client.delete(shared, headers=bob)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await client.get(own.headers["Location"], headers=bob)).status_code == 404
        mismatch = await client.post("/documents", json=GUIDE | {"user_id": "bob"}, headers=ann)
        assert (mismatch.status_code, mismatch.json()["code"]) == (403, "user_mismatch")
        assert len((await client.get("/documents", headers=ann)).json()["documents"]) == 2
        assert len((await client.get("/documents", headers=bob)).json()["documents"]) == 1
        assert (await client.delete(own.headers["Location"], headers=ann)).status_code == 204
        assert (await client.delete(shared, headers=front)).status_code == 204


# --- answers from them

ASK = {"message": "From when?", "stream": False}


async def test_chat_is_answered_from_the_collection_that_it_names(client: Client) -> None:
    document = (await client.post("/documents", json=MARKDOWN)).json()["document_id"]
    answer = await client.post("/chat", json=ASK | {"collection": "handbook", "session_id": "s"})
    [source] = answer.json()["sources"]
    assert source.pop("score") > 0
    assert source == {
        "id": "source_1",
        "title": "Guide",
        "document": document,
        "place": "Hours, paragraph 1",
        "text": "# Hours\n\nFrom nine.",
    }
    assert (await client.get("/sessions/s")).json()["collection"] == "handbook"
    later = await client.post("/chat", json=ASK | {"session_id": "s"})
    assert [source["document"] for source in later.json()["sources"]] == [document]
    stream = await client.get("/chat?message=Prices&collection=handbook&format=events")
    assert stream.text.index("event: source") < stream.text.index("event: run.completed")
    assert "Nothing." in stream.text


async def test_collection_of_a_session_is_set_and_taken_away(client: Client) -> None:
    await client.post("/documents", json=GUIDE)
    made = await client.post("/sessions", json={"session_id": "s", "collection": "handbook"})
    assert (made.status_code, made.json()["collection"]) == (201, "handbook")
    assert (await client.patch("/sessions/s", json={"title": "T"})).json()["collection"] == "handbook"
    assert (await client.patch("/sessions/s", json={"collection": None})).json()["collection"] is None
    assert (await client.post("/chat", json=ASK | {"session_id": "s"})).json().get("sources", []) == []
    assert (await client.patch("/sessions/s", json={"collection": "handbook"})).json()["collection"] == "handbook"


async def test_collection_without_a_document_is_refused_where_it_is_named(client: Client) -> None:
    await client.post("/documents", json=GUIDE | {"user_id": "ann"})
    await client.post("/sessions", json={"session_id": "s", "user_id": "bob"})
    for response in (
        await client.post("/chat", json=ASK | {"collection": "nothing"}),
        await client.post("/chat", json=ASK | {"collection": "handbook"}),
        await client.post("/chat", json=ASK | {"collection": "handbook", "user_id": "bob"}),
        await client.post("/chat", json=ASK | {"collection": "handbook", "session_id": "s"}),
        await client.get("/chat?message=Hi&collection=nothing"),
        await client.post("/sessions", json={"collection": "nothing"}),
        await client.patch("/sessions/s", json={"collection": "handbook"}),
    ):
        assert (response.status_code, response.json()["code"]) == (422, "collection_unknown")
    wrong = await client.post("/chat", json=ASK | {"collection": "a b"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")


async def test_session_whose_documents_are_gone_goes_on_without(client: Client) -> None:
    document = (await client.post("/documents", json=GUIDE)).headers["Location"]
    await client.post("/chat", json=ASK | {"collection": "handbook", "session_id": "s"})
    await client.delete(document)
    later = await client.post("/chat", json=ASK | {"session_id": "s"})
    assert (later.status_code, later.json().get("sources", [])) == (200, [])


async def test_the_same_key_with_another_collection_is_another_request(client: Client) -> None:
    for collection in ("handbook", "other"):
        await client.post("/documents", json=GUIDE | {"collection": collection})
    key = {"Idempotency-Key": "same"}
    first = await client.post("/chat", json=ASK | {"collection": "handbook"}, headers=key)
    again = await client.post("/chat", json=ASK | {"collection": "handbook"}, headers=key)
    assert again.headers["X-Run-Id"] == first.headers["X-Run-Id"]
    other = await client.post("/chat", json=ASK | {"collection": "other"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


async def test_passages_of_another_user_never_reach_an_answer(tmp_path: Path) -> None:
    async with served(tmp_path, auth="keys") as client:
        front = await made(client, "front")
        ann, bob = front | {"X-User-Id": "ann"}, front | {"X-User-Id": "bob"}
        await client.post("/documents", json=GUIDE | {"text": "From ten, for ann."}, headers=ann)
        await client.post("/documents", json=GUIDE | {"text": "From noon, for all."}, headers=front)
        for who, texts in ((ann, ["From noon, for all.", "From ten, for ann."]), (bob, ["From noon, for all."])):
            answer = await client.post("/chat", json=ASK | {"collection": "handbook"}, headers=who)
            assert sorted(source["text"] for source in answer.json()["sources"]) == texts


async def test_tool_that_echo_calls_finds_what_its_user_may_read(tmp_path: Path) -> None:
    async with served_as_set(tmp_path, auth="keys") as client:
        front = await made(client, "front")
        ann, bob = front | {"X-User-Id": "ann"}, front | {"X-User-Id": "bob"}
        await client.post("/documents", json=GUIDE | {"text": "Tea at ten, for ann."}, headers=ann)
        await client.post("/documents", json=GUIDE | {"text": "Tea at noon, for all."}, headers=front)
        ask = ASK | {"collection": "handbook", "message": '/search_documents {"query": "tea", "limit": 9}'}
        for who, texts in ((ann, ["Tea at noon, for all.", "Tea at ten, for ann."]), (bob, ["Tea at noon, for all."])):
            body = (await client.post("/chat", json=ask, headers=who)).json()
            assert sorted(source["text"] for source in body["sources"]) == texts
            assert [text in body["answer"] for text in texts] == [True] * len(texts)
        assert "ann" not in body["answer"]
