"""ChatKit's operations beside those of the library's own server, and without the library."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chatkit.server import ChatKitServer, NonStreamingResult
from chatkit.types import ThreadMetadata, ThreadStreamEvent, UserMessageItem

from chat.errors import ChatError
from chat.events import ReasoningDelta
from handlers.chatkit.threads import Threads
from tests.live.chatkit import operation, said
from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, served

JSON = {"Content-Type": "application/json"}


class Reference(ChatKitServer[str | None]):
    """The library's own server. Nobody asks it to answer anything."""

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: str | None
    ) -> AsyncIterator[ThreadStreamEvent]:
        raise NotImplementedError
        yield


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(tmp_path, ScriptedModel([ReasoningDelta("Hm."), "Hello ", "there", STOP])) as client:
        yield client


async def test_the_librarys_own_server_says_the_same_of_our_store(client: Client) -> None:
    library = Reference(Threads(client.app.state.engine))
    threads: list[str] = []
    for text in ("one", "two"):
        created = await client.post("/chatkit?user_id=ann", json=operation("threads.create", input=said(text)))
        threads.append(created.headers["x-session-id"])
    more = operation("threads.add_user_message", thread_id=threads[0], input=said("three"))
    await client.post("/chatkit?user_id=ann", json=more)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("threads.get_by_id", {"thread_id": threads[0]}),
        ("threads.list", {}),
        ("threads.list", {"limit": 1}),
        ("items.list", {"thread_id": threads[0]}),
        ("items.list", {"thread_id": threads[0], "order": "asc", "limit": 2}),
        ("items.list", {"thread_id": threads[0], "limit": 4}),
        ("threads.update", {"thread_id": threads[1], "title": "Counting"}),
        ("threads.list", {}),
        ("threads.delete", {"thread_id": threads[1]}),
    ]
    for kind, params in asked:
        body = json.dumps(operation(kind, **params))
        ours = await client.post("/chatkit?user_id=ann", content=body, headers=JSON) if "delete" not in kind else None
        theirs = await library.process(body, "ann")
        assert isinstance(theirs, NonStreamingResult)
        assert theirs.json == (b"{}" if ours is None else ours.content), kind
        assert len(theirs.json) > 100 or ours is None
    gone = await client.post("/chatkit", json=operation("threads.get_by_id", thread_id=threads[1]))
    assert gone.json()["code"] == "not_found"


async def test_items_are_found_by_their_ids_and_written_by_runs_alone(client: Client) -> None:
    created = await client.post("/chatkit", json=operation("threads.create", input=said("one")))
    thread_id, threads = created.headers["x-session-id"], Threads(client.app.state.engine)
    page = await threads.load_thread_items(thread_id, None, 20, "asc", None)
    assert [item.type for item in page.data] == ["user_message", "workflow", "assistant_message"]
    for item in page.data:
        assert await threads.load_item(thread_id, item.id, None) == item
        for writing in (
            threads.add_thread_item(thread_id, item, None),
            threads.save_item(thread_id, item, None),
            threads.delete_thread_item(thread_id, item.id, None),
            threads.load_attachment("atc_1", None),
            threads.delete_attachment("atc_1", None),
        ):
            with pytest.raises(ChatError) as refused:
                await writing
            assert refused.value.code == "invalid_request"
    for unknown in ("nothing", f"{page.data[-1].id}.7"):
        with pytest.raises(ChatError) as missing:
            await threads.load_item(thread_id, unknown, None)
        assert missing.value.code == "not_found"


async def test_without_the_package_the_answer_says_what_to_install(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "chatkit"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("operations", "answering", "threads"):
        monkeypatch.delitem(sys.modules, f"handlers.chatkit.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "chatkit", None)
    refused = await client.post("/chatkit", json=operation("threads.list"))
    assert (refused.status_code, refused.json()["code"]) == (501, "chatkit_missing")
    assert "./scripts/install.sh requirements-chatkit.txt" in refused.json()["detail"]
    assert (await client.get("/health")).status_code == 200


async def test_a_mistake_in_our_own_imports_is_not_taken_for_the_package(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "handlers.chatkit.operations", raising=False)
    monkeypatch.setitem(sys.modules, "handlers.chatkit.operations", None)
    refused = await client.post("/chatkit", json=operation("threads.list"))
    assert (refused.status_code, refused.json()["code"]) == (500, "internal")
