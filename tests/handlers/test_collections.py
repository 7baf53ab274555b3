"""Every route that takes a message takes the name of a collection, too."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.handlers.test_identity import made
from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, served

GUIDE = {"text": "From nine to five.", "title": "Guide", "collection": "handbook"}
QUESTION = "From when?"
MESSAGES = [{"role": "user", "content": QUESTION}]
PART = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": QUESTION}]}
AGENT = {"threadId": "s", "runId": "r1", "messages": [{"id": "1", **MESSAGES[0]}]}
SAID = {
    "content": [{"type": "input_text", "text": QUESTION}],
    "attachments": [],
    "inference_options": {"tool_choice": None, "model": None},
}

ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat", {"message": QUESTION, "session_id": "s"}),
    "messages": ("/api/chat", {"messages": MESSAGES, "session_id": "s"}),
    "ai_sdk": ("/api/chat", {"id": "s", "messages": [PART], "trigger": "submit-message"}),
    "completions": ("/v1/chat/completions", {"messages": MESSAGES, "metadata": {"session_id": "s"}}),
    "responses": ("/v1/responses", {"input": QUESTION, "conversation": "s"}),
    "ag_ui": ("/ag-ui", AGENT),
    "query": ("/query", {"prompt": QUESTION}),
    "query_stream": ("/query/stream", {"prompt": QUESTION}),
    "chatkit": ("/chatkit", {"type": "threads.create", "params": {"input": SAID}}),
}
"""What is asked there, always the same."""

every_route = pytest.mark.parametrize("route", list(ROUTES))


def asking(route: str, collection: str) -> tuple[str, dict[str, Any]]:
    """The path and the body, with the collection where that route has it."""
    path, body = ROUTES[route]
    if route == "ag_ui":
        return path, body | {"forwardedProps": {"collection": collection}}
    if route == "chatkit":
        return f"{path}?collection={collection}", body
    return path, body | {"collection": collection}


def refusal(path: str) -> int:
    """OpenAI knows no 422."""
    return 400 if path.startswith("/v1/") else 422


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel(["At nine.", STOP])


@pytest.fixture
async def client(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Client]:
    async with served(tmp_path, model) as client:
        assert (await client.post("/documents", json=GUIDE)).status_code == 201
        yield client


@every_route
async def test_answer_is_taken_from_the_collection_and_the_session_keeps_it(
    client: Client, model: ScriptedModel, route: str
) -> None:
    path, body = asking(route, "handbook")
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    [asked] = model.requests
    assert GUIDE["text"] in asked.request.messages[0].content
    assert [tool.name for tool in asked.request.tools] == ["search_documents"]
    [session] = (await client.get("/sessions")).json()["sessions"]
    assert session["collection"] == "handbook"
    messages = (await client.get(f"/sessions/{session['session_id']}/messages")).json()["messages"]
    assert [source["text"] for source in messages[-1]["sources"]] == [GUIDE["text"]]


@every_route
async def test_collection_without_a_document_is_refused(client: Client, model: ScriptedModel, route: str) -> None:
    for collection, said in (("nothing", "collection_unknown"), ("a b", "collection: ")):
        path, body = asking(route, collection)
        response = await client.post(path, json=body)
        assert response.status_code == refusal(path)
        assert said in response.text
    assert model.requests == []
    assert (await client.get("/sessions")).json()["sessions"] == []


@every_route
async def test_another_users_collection_is_not_there(tmp_path: Path, model: ScriptedModel, route: str) -> None:
    async with served(tmp_path, model, auth="keys") as client:
        front = await made(client, "front")
        ann, bob = front | {"X-User-Id": "ann"}, front | {"X-User-Id": "bob"}
        await client.post("/documents", json=GUIDE, headers=ann)
        path, body = asking(route, "handbook")
        refused = await client.post(path, json=body, headers=bob)
        assert refused.status_code == refusal(path)
        assert "collection_unknown" in refused.text
        taken = await client.post(path, json=body, headers=ann)
        assert taken.status_code == 200, taken.text
        [asked] = model.requests
        assert GUIDE["text"] in asked.request.messages[0].content


KEYED = [route for route in ROUTES if route not in ("ag_ui", "chatkit")]


@pytest.mark.parametrize("route", KEYED)
async def test_the_same_key_with_another_collection_is_another_request(client: Client, route: str) -> None:
    await client.post("/documents", json=GUIDE | {"collection": "other"})
    key = {"Idempotency-Key": "same"}
    path, body = asking(route, "handbook")
    first = await client.post(path, json=body, headers=key)
    again = await client.post(path, json=body, headers=key)
    assert again.headers["X-Run-Id"] == first.headers["X-Run-Id"]
    path, body = asking(route, "other")
    other = await client.post(path, json=body, headers=key)
    assert other.status_code == refusal(path)
    assert "idempotency_conflict" in other.text
