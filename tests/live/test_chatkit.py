"""ChatKit's backend: threads, and answers that outlive the connection of who asked."""

import asyncio
import json
from typing import Any

import pytest

from tests.live.chatkit import Chat, operation, said, until
from tests.live.conftest import Serve
from tests.live.service import PATIENCE, Service
from tests.live.test_tools import FEEDBACK
from tests.upstream import Reply, Upstream, calling, chunk, completion, done, finish, refusal, reply, thought
from tests.widget import Widget, same, text_of

chatkit = pytest.mark.client


@chatkit("ChatKit", "send", "stream")
async def test_conversation_is_what_the_list_of_its_items_says(service: Service) -> None:
    chat = Chat(service)
    first = await chat.begin("Hello there")
    thread_id = first.thread["id"]
    assert first.beside == [{"type": "stream_options", "stream_options": {"allow_cancel": False}}]
    second = await chat.say(thread_id, "And again")
    assert (first.text, second.text, second.thread) == ("Hello there", "And again", None)
    shown = [*first.items.values(), *second.items.values()]
    assert [item["type"] for item in shown] == ["user_message", "assistant_message"] * 2
    assert same(await chat.items(thread_id), shown)
    whole = await chat.thread(thread_id)
    assert (whole.id, len(whole.items.data), whole.items.has_more) == (thread_id, 4, False)


@chatkit("ChatKit", "stop")
async def test_stop_button_ends_the_run_where_the_page_asks_for_one(serve: Serve) -> None:
    async with Upstream(reply(chunk("Half "), asyncio.Event())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        chat, widget = Chat(service, on_disconnect="cancel"), Widget()
        async with chat.open("threads.create", input=said("Hi")) as received:
            await until(received, widget, "Half ")
        assert widget.beside == [{"type": "stream_options", "stream_options": {"allow_cancel": True}}]
        async with asyncio.timeout(PATIENCE):
            await (await upstream.request(0)).closed.wait()
        [run] = service.rows("SELECT id FROM runs")
        assert (await service.ended(str(run[0])))["status"] == "cancelled"
        assert text_of(await chat.items(widget.thread["id"])) == "Half "


async def test_stop_from_elsewhere_is_a_notice_and_keeps_what_was_said(serve: Serve) -> None:
    async with Upstream(reply(chunk("Half "), asyncio.Event())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        chat, widget = Chat(service), Widget()
        async with chat.open("threads.create", input=said("Hi")) as received:
            await until(received, widget, "Half ")
            await service.client.post(f"/api/chat/{widget.thread['id']}/stop")
            async with asyncio.timeout(PATIENCE):
                widget.see(*[event async for event in received])
        assert (widget.beside[-1]["type"], widget.open) == ("notice", set())
        assert same(await chat.items(widget.thread["id"]), list(widget.items.values()))


@chatkit("ChatKit", "errors")
@pytest.mark.parametrize(
    ("failing", "retryable"), [(refusal(401), False), (reply(chunk("Half "), chunk("an answer")), True)]
)
async def test_failure_is_an_error_and_can_be_tried_again(serve: Serve, failing: Reply, retryable: bool) -> None:
    async with Upstream(failing, completion("Better.")) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        chat = Chat(service)
        failed = await chat.begin("Hi")
        error = failed.beside[-1]
        assert (error["type"], error["code"], error["allow_retry"]) == ("error", "custom", retryable)
        assert failed.open == set()
        thread_id, user_id = failed.thread["id"], next(iter(failed.items))
        assert same(await chat.items(thread_id), list(failed.items.values()))
        again = Widget()
        again.see(*await chat.stream("threads.retry_after_item", thread_id=thread_id, item_id=user_id))
        assert again.text == "Better."
        assert text_of(await chat.items(thread_id)) == "Better."


@chatkit("ChatKit", "tools")
async def test_reasoning_and_tools_are_workflows(serve: Serve) -> None:
    replies = (
        calling("call_1", "submit_feedback", FEEDBACK),
        reply(thought("Be "), thought("polite."), chunk("Thank you."), finish(), done()),
    )
    async with Upstream(*replies) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", TOOLS="examples.town_hall")
        chat = Chat(service)
        widget = await chat.begin("Lockers, please")
        _, tools, thoughts, message = widget.items.values()
        [task] = tools["workflow"]["tasks"]
        assert (task["title"], task["status_indicator"]) == ("submit_feedback", "complete")
        assert "rec_" in task["content"]
        assert thoughts["workflow"]["tasks"][0]["content"] == "Be polite."
        assert widget.text == "Thank you." == message["content"][0]["text"]
        assert same(await chat.items(widget.thread["id"]), list(widget.items.values()))


@chatkit("ChatKit", "tools")
@pytest.mark.parametrize("yes", [True, False])
async def test_call_that_asks_first_is_answered_in_the_widget(serve: Serve, yes: bool) -> None:
    replies = (calling("call_1", "order", {"article": "tea"}), completion("It is done."))
    async with Upstream(*replies) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", TOOLS="tests.live.careful_tool")
        chat = Chat(service)
        widget = await chat.begin("Tea, please")  # the stream ends here
        thread_id, asked = widget.thread["id"], list(widget.items.values())[-1]
        assert (asked["type"], asked["status"]) == ("structured_input", "pending")
        items = await chat.items(thread_id)
        assert same(items, list(widget.items.values()))
        [question] = asked["inputs"]
        assert 'order be called? {"article": "tea"}' in question["question"]
        answers = {question["id"]: {"values": ["Yes" if yes else "No"]}}
        told = {"thread_id": thread_id, "item_id": asked["id"], "input": {"answers": answers}}
        widget.see(*await chat.stream("threads.add_structured_input", **told))
        assert widget.items[asked["id"]]["inputs"][0]["answer"]["values"] == ["Yes" if yes else "No"]
        assert widget.text == "It is done."
        assert same(await chat.items(thread_id), list(widget.items.values()))
        assert len((await service.client.get("/records?kind=order")).json()["records"]) == int(yes)

        again = Widget()
        again.items, again.open = widget.items, {item["id"] for item in items}
        repeated = await chat.stream("threads.add_structured_input", **told)  # as a proxy does
        assert repeated[0]["type"] == "stream_options"
        assert text_of([event["item"] for event in repeated if event["type"] == "thread.item.done"]) == "It is done."
        other = {question["id"]: {"values": ["No" if yes else "Yes"]}}
        told["input"] = {"answers": other}
        assert await chat.refused("threads.add_structured_input", **told) == (409, "already_decided")


async def test_conversations_of_other_protocols_are_threads_and_the_other_way_round(service: Service) -> None:
    chat = Chat(service)
    await service.ended(await service.begin("one", session_id="shared", user_id="ann"))
    widget = await chat.say("shared", "two")
    assert widget.text == "two"
    await service.ended(await service.begin("three", session_id="shared"))
    items = await chat.items("shared")
    contents = [part["text"] for item in items for part in item["content"]]
    stored = (await service.client.get("/sessions/shared/messages")).json()["messages"]
    assert contents == [message["content"] for message in stored] == ["one", "one", "two", "two", "three", "three"]
    turns = [{"role": role, "content": text} for role, text in [("user", "a"), ("assistant", "b"), ("user", "c")]]
    await service.client.post("/api/chat", json={"messages": turns, "sessionId": "brought"})
    brought = await chat.items("brought")
    assert [item["content"][0]["text"] for item in brought] == ["a", "b", "c", "c"]


async def test_a_retry_and_an_edit_are_other_branches(service: Service) -> None:
    chat = Chat(service)
    widget = await chat.begin("one")
    thread_id, [user_id, answer_id] = widget.thread["id"], widget.items
    again = Widget()
    again.see(*await chat.stream("threads.retry_after_item", thread_id=thread_id, item_id=user_id))
    [other_id] = again.items
    assert other_id != answer_id
    assert [item["id"] for item in await chat.items(thread_id)] == [user_id, other_id]
    edit = {"message": "uno", "session_id": thread_id, "parent_id": None}
    await service.client.post("/chat", json=edit)
    assert [item["content"][0]["text"] for item in await chat.items(thread_id)] == ["uno", "uno"]


async def test_messages_that_wait_in_the_queue_are_shown_with_what_is_being_said(serve: Serve) -> None:
    gate = asyncio.Event()
    async with Upstream(reply(chunk("Half "), gate, finish(), done()), completion("Whole.")) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        chat, widget = Chat(service), Widget()
        async with chat.open("threads.create", input=said("one")) as received:
            await until(received, widget, "Half ")
        thread_id = widget.thread["id"]
        params = {"thread_id": thread_id, "input": said("two")}
        assert await chat.refused("threads.add_user_message", **params) == (409, "run_in_progress")
        queue = Chat(service, on_busy="queue")
        runs = [await service.begin(text, session_id=thread_id, on_busy="queue") for text in ("two", "three")]
        expected = ["one", "Half ", "two", "three"]
        for order in ("asc", "desc"):
            items = await queue.items(thread_id, order=order)
            assert [item["content"][0]["text"] for item in items] == expected
        gate.set()
        await service.ended(runs[-1])
        items = await chat.items(thread_id)
        expected = ["one", "Half ", "two", "Whole.", "three", "Whole."]
        assert [item["content"][0]["text"] for item in items] == expected


async def test_the_same_request_starts_one_run(serve: Serve) -> None:
    gate = asyncio.Event()
    async with Upstream(reply(chunk("Half "), gate, chunk("and half"), finish(), done())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        chat, first, second = Chat(service), Widget(), Widget()
        key = {"metadata": {"request_id": "a-key"}}
        body = operation("threads.create", input=said("Hi")) | key
        async with service.stream("POST", "/chatkit", json=body) as received:
            async with asyncio.timeout(PATIENCE):
                while "Half " not in first.text:
                    first.see(json.loads((await anext(received)).data or ""))
        thread_id = first.thread["id"]
        gate.set()
        again = await service.client.post("/chatkit", json=operation("threads.create", input=said("Hi")) | key)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["x-session-id"] == thread_id
        header = {"Idempotency-Key": "a-key"}
        by_header = await service.client.post(
            "/chatkit", json=operation("threads.create", input=said("Hi")), headers=header
        )
        assert by_header.text == again.text
        other = operation("threads.create", input=said("Ho")) | key
        assert (await service.client.post("/chatkit", json=other)).json()["code"] == "idempotency_conflict"
        second.see(*await chat.stream("threads.add_user_message", thread_id=thread_id, input=said("Again")))
        assert service.rows("SELECT count(*) FROM runs") == [(2,)]


async def test_a_message_that_is_sent_again_while_it_is_answered_attaches(serve: Serve) -> None:
    gate = asyncio.Event()
    async with Upstream(completion("Yes?"), reply(chunk("Half "), gate, finish(), done())) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted")
        chat = Chat(service)
        thread_id = (await chat.begin("Hi")).thread["id"]
        first, second = Widget(), Widget()
        params = {"thread_id": thread_id, "input": said("Now")}
        async with (
            chat.open("threads.add_user_message", **params) as one,
            chat.open("threads.add_user_message", **params) as two,
        ):
            await until(one, first, "Half ")
            await until(two, second, "Half ")
            gate.set()
            async with asyncio.timeout(PATIENCE):
                second.see(*[event async for event in two])
        assert list(second.items)[-1] == list(first.items)[-1]
        assert service.rows("SELECT count(*) FROM runs") == [(2,)]


async def test_pages_of_items_and_threads_join_up(service: Service) -> None:
    chat = Chat(service, user_id="ann")
    threads = [(await chat.begin(f"thread {number}")).thread["id"] for number in range(3)]
    await Chat(service, user_id="bob").begin("another's")
    for text in ("two", "three"):
        await chat.say(threads[0], text)
    for order in ("asc", "desc"):
        whole, found, after = await chat.items(threads[0], order=order), [], None
        while True:
            page = await chat.get("items.list", thread_id=threads[0], order=order, limit=4, after=after)
            found += page["data"]
            after = page.get("after")
            if not page["has_more"]:
                break
            assert len(page["data"]) == 4
        assert found == (whole if order == "asc" else whole[::-1])
        assert len(found) == 6
    first = await chat.get("threads.list", limit=2)
    rest = await chat.get("threads.list", limit=9999, after=first["after"])
    assert [thread["id"] for thread in first["data"] + rest["data"]] == [threads[0], threads[2], threads[1]]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert len((await Chat(service).get("threads.list", limit=0))["data"]) == 4


async def test_title_feedback_and_deletion(service: Service) -> None:
    chat = Chat(service)
    widget = await chat.begin("Hello")
    thread_id, answer_id = widget.thread["id"], list(widget.items)[-1]
    assert (await chat.get("threads.update", thread_id=thread_id, title="Greeting"))["title"] == "Greeting"
    assert (await chat.thread(thread_id)).title == "Greeting"
    assert (await service.client.get(f"/sessions/{thread_id}")).json()["title"] == "Greeting"
    feedback = {"thread_id": thread_id, "item_ids": [answer_id], "kind": "negative"}
    assert await chat.get("items.feedback", **feedback) == {}
    assert await chat.get("items.feedback", **(feedback | {"item_ids": []})) == {}
    later, first = (await service.client.get("/records?kind=chatkit.feedback")).json()["records"]
    [run] = service.rows("SELECT id FROM runs")
    assert (first["data"], first["run_id"]) == ({"feedback": "negative", "item_ids": [answer_id]}, run[0])
    assert later["run_id"] == ""
    assert await chat.get("threads.delete", thread_id=thread_id) == {}
    assert await chat.refused("threads.get_by_id", thread_id=thread_id) == (404, "not_found")


async def test_items_outlive_their_events(serve: Serve) -> None:
    replies = (calling("call_1", "submit_feedback", FEEDBACK), completion("Thank you."))
    async with Upstream(*replies) as upstream:
        settings = {"EVENT_RETENTION": "0", "TOOLS": "examples.town_hall"}
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", **settings)
        chat = Chat(service)
        widget = await chat.begin("Lockers, please")
        await service.restart()  # the first sweep comes with the start
        async with asyncio.timeout(PATIENCE):
            while service.rows("SELECT folded FROM runs") != [(1,)]:  # noqa: ASYNC110  # another process's table
                await asyncio.sleep(0.05)
        items = await chat.items(widget.thread["id"])
        assert text_of(items) == widget.text == "Thank you."
        [task] = [task for item in items if item["type"] == "workflow" for task in item["workflow"]["tasks"]]
        assert (task["title"], task["status_indicator"]) == ("submit_feedback", "complete")


async def test_what_is_quoted_or_tagged_is_part_of_the_message(service: Service) -> None:
    chat = Chat(service)
    content = [
        {"type": "input_text", "text": "Ask "},
        {"type": "input_tag", "id": "t1", "text": "Ann", "data": {}},
        {"type": "input_text", "text": "!"},
    ]
    events = await chat.stream("threads.create", input=said("", content=content, quoted_text="She knows.\nAll."))
    user = events[1]["item"]
    assert user["content"] == [{"type": "input_text", "text": "> She knows.\n> All.\n\nAsk Ann!"}]


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


async def test_deep_data_of_a_tag_is_no_trouble(service: Service) -> None:
    for depth in (10, 60, 120):
        tag = {"type": "input_tag", "id": "t1", "text": "Ann", "data": nested(depth)}
        body = {"type": "threads.create", "params": {"input": said("", content=[tag])}, "metadata": {"request_id": "k"}}
        response = await service.client.post(
            "/chatkit", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 200, response.text
    assert service.rows("SELECT count(*) FROM runs") == [(1,)]


UNKNOWN = {"thread_id": "nobody"}
INPUT = said("Hi")
REFUSED: list[tuple[str, dict[str, Any], tuple[int, str]]] = [
    ("threads.get_by_id", UNKNOWN, (404, "not_found")),
    ("threads.update", {**UNKNOWN, "title": "x"}, (404, "not_found")),
    ("threads.update", {"thread_id": "here", "title": "x" * 201}, (422, "invalid_request")),
    ("threads.delete", UNKNOWN, (404, "not_found")),
    ("threads.list", {"order": "asc"}, (422, "invalid_request")),
    ("threads.list", {"after": "x"}, (422, "invalid_request")),
    ("items.list", UNKNOWN, (404, "not_found")),
    ("items.list", {"thread_id": "here", "after": "x"}, (422, "invalid_request")),
    ("items.feedback", {**UNKNOWN, "item_ids": [], "kind": "positive"}, (404, "not_found")),
    ("threads.add_user_message", {**UNKNOWN, "input": INPUT}, (404, "not_found")),
    ("threads.create", {"input": said("")}, (422, "invalid_request")),
    ("threads.create", {"input": said("x" * 100_001)}, (422, "invalid_request")),
    ("threads.create", {"input": said("Hi", attachments=["atc_1"])}, (422, "invalid_request")),
    ("threads.create", {"input": said("Hi", inference_options={"model": "gpt-9"})}, (422, "model_not_allowed")),
    ("threads.create", {"input": said("Hi", inference_options={"tool_choice": {"id": "t"}})}, (422, "invalid_request")),
    ("threads.retry_after_item", {**UNKNOWN, "item_id": "x"}, (404, "not_found")),
    ("threads.retry_after_item", {"thread_id": "here", "item_id": "x"}, (422, "invalid_request")),
    ("threads.retry_after_item", {"thread_id": "here", "item_id": "ANSWER"}, (422, "invalid_request")),
    ("threads.retry_after_item", {"thread_id": "brought", "item_id": "BROUGHT"}, (404, "not_found")),
    ("threads.add_structured_input", {"thread_id": "here", "item_id": "x", "input": {}}, (404, "not_found")),
    ("threads.add_structured_input", {"thread_id": "here", "item_id": "RUN.call", "input": {}}, (404, "not_found")),
    ("threads.add_structured_input", {**UNKNOWN, "item_id": "RUN.call", "input": {}}, (404, "not_found")),
    ("threads.add_client_tool_output", {"thread_id": "here", "result": 1}, (422, "invalid_request")),
    ("threads.custom_action", {"thread_id": "here", "action": {"type": "x"}}, (422, "invalid_request")),
    ("threads.sync_custom_action", {"thread_id": "here", "action": {"type": "x"}}, (422, "invalid_request")),
    ("attachments.create", {"name": "a", "size": 1, "mime_type": "text/plain"}, (422, "invalid_request")),
    ("attachments.delete", {"attachment_id": "x"}, (422, "invalid_request")),
    ("input.transcribe", {"audio_base64": "", "mime_type": "audio/webm"}, (422, "invalid_request")),
]


async def test_what_this_service_does_not_do_is_refused_and_changes_nothing(service: Service) -> None:
    chat = Chat(service)
    run_id = await service.begin("Hi", session_id="here")
    answer_id = str((await service.ended(run_id))["answer_id"])
    turns = [{"role": role, "content": text} for role, text in [("user", "a"), ("assistant", "b"), ("user", "c")]]
    await service.client.post("/api/chat", json={"messages": turns, "sessionId": "brought"})
    brought = (await chat.items("brought"))[0]["id"]
    before = service.rows("SELECT id, title FROM sessions"), service.rows("SELECT id FROM runs")
    for kind, params, expected in REFUSED:
        names = {"ANSWER": answer_id, "BROUGHT": brought, "RUN.call": f"{run_id}.call"}
        given = {name: names.get(value, value) if isinstance(value, str) else value for name, value in params.items()}
        assert await chat.refused(kind, **given) == expected, (kind, params)
    assert (service.rows("SELECT id, title FROM sessions"), service.rows("SELECT id FROM runs")) == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"{", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b"[]", 422, "invalid_request"),
        (b'{"type": "threads.create"}', 422, "invalid_request"),
        (b'{"type": "threads.create", "params": []}', 422, "invalid_request"),
        (b'{"type": "threads.create", "params": {"input": "Hi"}}', 422, "invalid_request"),
        (b'{"type": "threads.explode", "params": {}}', 422, "invalid_request"),
        (b'{"type": ["threads.list"], "params": {}}', 422, "invalid_request"),
        (b'{"type": "threads.list", "params": {"limit": "many"}}', 422, "invalid_request"),
        (b'{"type": "threads.list", "params": {"limit": 9223372036854775808}}', 200, ""),
        (b'{"type": "threads.list", "params": {"limit": -5}}', 200, ""),
        (b'{"type": "threads.list", "params": {"after": "99999999999999999999"}}', 422, "invalid_request"),
        (b'{"type": "threads.list", "params": {}, "metadata": {"request_id": "a b"}}', 422, "invalid_request"),
        (b'{"type": "threads.get_by_id", "params": {"thread_id": "\\u0000"}}', 404, "not_found"),
        (b'{"type": "threads.get_by_id", "params": {"thread_id": "\\ud83d"}}', 400, "invalid_json"),
        (b'{"type": "items.list", "params": {"thread_id": 1}}', 422, "invalid_request"),
    ],
)
async def test_bad_bodies_are_told_what_is_wrong(service: Service, body: bytes, status: int, code: str) -> None:
    response = await service.client.post("/chatkit", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json().get("code", "")) == (status, code), response.text
    plain = await service.client.post("/chatkit", content=b"{}", headers={"Content-Type": "text/plain"})
    assert plain.json()["code"] == "unsupported_media_type"
    unknown = await service.client.post("/chatkit?template=unknown", json=operation("threads.create", input=said("Hi")))
    assert unknown.json()["code"] == "template_unknown"
    wrong = await service.client.post("/chatkit?on_busy=explode", json=operation("threads.list"))
    assert wrong.json()["code"] == "invalid_request"
