"""The API's description held against a running service, and its page in a real browser."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.described import Description
from tests.live.browser import Watched, chromium
from tests.live.chatkit import said
from tests.live.conftest import Serve
from tests.live.service import Service, free_port

LONG = " ".join(f"word{number}" for number in range(400))


class Caller:
    """Asks, and holds every response against the description."""

    def __init__(self, service: Service, description: Description) -> None:
        self.description = description
        self._client = service.client

    async def __call__(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        response = await self._client.request(method, path, **arguments)
        self.description.check_response(response)
        return response

    async def refused(self, code: str, method: str, path: str, **arguments: Any) -> httpx.Response:
        response = await self(method, path, **arguments)
        assert response.json()["code"] == code, response.text
        return response


async def caller(service: Service) -> Caller:
    return Caller(service, Description((await service.client.get("/openapi.json")).json()))


# --- what the service answers is what the description says --------------------------------------------------------


async def test_answers_of_every_operation_are_as_described(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "greeter.txt").write_text("Greet {{ name }}.")
    call = await caller(await serve(TEMPLATES_DIR=str(tmp_path), TOOLS="tests.live.careful_tool"))
    greeting = {"template": "greeter", "variables": {"name": "Ann"}}
    for path in ("/", "/health", "/chat/health", "/ready", "/metrics", "/models", "/openapi.json"):
        await call("GET", path)
    assert (await call("GET", "/", headers={"Accept": "text/html"})).status_code == 303

    for method in ("GET", "POST"):
        await call(method, "/doctor/stream", params={"events": 2, "interval": 0})
        after = {"Last-Event-ID": "doctor.3"}
        assert (await call(method, "/doctor/stream", params={"events": 2}, headers=after)).status_code == 204
    await call("POST", "/sessions", json={"session_id": "one", "user_id": "ann", "metadata": {"a": [1, None]}})
    await call("POST", "/sessions/create", json=greeting)
    first = (await call("GET", "/sessions", params={"limit": 1})).json()
    assert (await call("GET", "/sessions", params={"after": first["next"]})).json()["next"] is None
    await call("PATCH", "/sessions/one", json={"title": "First"})

    stream = await call("POST", "/chat", json={"message": "Hi there", "session_id": "one"})
    run_id = stream.headers["x-run-id"]
    end = {"Last-Event-ID": f"{run_id}.3"}
    assert (await call("POST", "/chat", json={"message": "Hi there"}, headers=end)).status_code == 204
    await call("POST", "/chat", json={"message": "Hi", "format": "events"})
    await call("POST", "/chat", json={"message": "Hi", "stream": False})
    await call("POST", "/chat", json={"message": "Hi"}, headers={"Prefer": "respond-async"})
    again = {"json": {"message": "Hi"}, "headers": {"Idempotency-Key": "key"}}
    await call("POST", "/chat", **again)
    assert (await call("POST", "/chat", **again)).headers["idempotency-replayed"] == "true"
    await call("POST", "/chat", json={"message": "Hi", **greeting})
    await call("GET", "/chat", params={"message": "Hi", "format": "events"})
    assert (await call("GET", "/templates")).json()["templates"]
    assert (await call("GET", "/search", params={"q": "there"})).json()["results"]
    handbook = {"text": "# Hi there\n\nFrom nine.", "title": "T", "collection": "c", "media_type": "text/markdown"}
    document = (await call("POST", "/documents", json=handbook)).headers["location"]
    assert (await call("GET", "/documents")).json()["documents"] == [(await call("GET", document)).json()]
    await call.refused("document_empty", "POST", "/documents", json=handbook | {"text": ""})
    assert (await call("DELETE", document)).status_code == 204
    await call.refused("not_found", "DELETE", document)
    await call("POST", "/api/chat", json={"messages": [{"role": "user", "content": "Hi"}], "sessionId": "two"})
    parts = [{"type": "text", "text": "Hi"}]
    await call("POST", "/api/chat", json={"id": "three", "messages": [{"id": "u1", "role": "user", "parts": parts}]})
    assert (await call("GET", "/api/chat/three/stream")).status_code == 204
    assert (await call("POST", "/api/chat/three/stop")).status_code == 204
    await call("POST", "/query", json={"prompt": "Why?"})
    await call("POST", "/query/stream", json={"prompt": "Why?"})

    agent = {"threadId": "agent", "runId": "mine", "messages": [{"id": "1", "role": "user", "content": "Hi"}]}
    await call("POST", "/ag-ui", json=agent)
    await call("GET", "/ag-ui", params={"runId": "mine"})
    thread = {"type": "threads.create", "params": {"input": said("Hi")}}
    created = await call("POST", "/chatkit", json=thread)
    listing = {"type": "items.list", "params": {"thread_id": created.headers["x-session-id"]}}
    assert len((await call("POST", "/chatkit", json=listing)).json()["data"]) == 2
    await call("GET", "/v1/models")
    await call("GET", "/v1/models/echo")
    completion = {"messages": [{"role": "user", "content": "Hi"}]}
    await call("POST", "/v1/chat/completions", json=completion)
    await call("POST", "/v1/chat/completions", json=completion | {"stream": True})

    response = (await call("POST", "/v1/responses", json={"input": "Hi"})).json()["id"]
    await call("POST", "/v1/responses", json={"input": [{"role": "user", "content": "Hi"}], "stream": True})
    await call("POST", "/v1/responses", json={"input": "Hi", "background": True, "previous_response_id": response})
    await call("GET", f"/v1/responses/{response}")
    await call("GET", f"/v1/responses/{response}", params={"stream": True, "starting_after": 3})
    await call("POST", f"/v1/responses/{response}/cancel")

    await call("GET", f"/runs/{run_id}")
    await call("POST", f"/runs/{run_id}/ticket")
    await call("GET", f"/runs/{run_id}/events", params={"after": "1"})
    assert (await call("GET", f"/runs/{run_id}/events", headers=end)).status_code == 204
    await call("POST", f"/runs/{run_id}/cancel")
    await call("POST", f"/runs/{run_id}/retry", json={"stream": False})

    ordered = {"message": '/order {"article": "tea"}', "session_id": "one"}
    waiting = (await call("POST", "/chat", json=ordered, headers={"Prefer": "respond-async"})).json()["run_id"]
    approval = f"/runs/{waiting}/approvals/call_order"
    async with asyncio.timeout(20):
        while not (calls := (await call("GET", f"/runs/{waiting}")).json()["waiting"]):  # noqa: ASYNC110  # it is far
            await asyncio.sleep(0.02)
    assert calls == [{"call_id": "call_order", "name": "order", "arguments": '{"article": "tea"}'}]
    await call("POST", approval, json={"approved": True})
    assert (await call("GET", f"/runs/{waiting}")).json()["waiting"] == []
    await call.refused("already_decided", "POST", approval, json={"approved": False})
    assert "tool.finished" in (await call("GET", f"/runs/{waiting}/events", params={"format": "events"})).text
    assert (await call("GET", "/records", params={"kind": "order"})).json()["records"]

    await call("GET", "/sessions/one")
    assert (await call("GET", "/sessions/one/messages")).json()["messages"][-1]["tool_calls"]
    assert (await call("GET", "/sessions/one/events")).status_code == 204
    await call("GET", "/usage", params={"by": "user"})
    assert '"First"' in (await call("GET", "/users/ann/export")).text
    await call("DELETE", "/sessions/one")
    await call("DELETE", "/users/ann")
    await call.refused("not_found", "GET", "/users/bob/export")
    await call.refused("not_found", "DELETE", "/users/bob")

    who = await asking_who(serve)
    user = (await who("POST", "/users/anonymous")).json()
    await who("GET", "/sessions", headers={"Authorization": f"Bearer {user['token']}"})

    document = call.description.document["paths"]
    described = {(method.upper(), path) for path, methods in document.items() for method in methods}
    seen = call.description.seen | who.description.seen
    assert {(method, path) for method, path, status in seen if status < 400} == described


async def asking_who(serve: Serve) -> Caller:
    """A service that wants to know who asks."""
    return await caller(await serve(AUTH="jwt", JWT_SECRET="s" * 32, ANONYMOUS_USERS="true"))


async def test_strangers_are_refused_as_described(serve: Serve) -> None:
    call = await asking_who(serve)
    known = {"Authorization": f"Bearer {(await call('POST', '/users/anonymous')).json()['token']}"}
    operations = call.description.document["paths"].items()
    for path, methods in operations:
        for method, operation in methods.items():
            if operation.get("security") != []:
                response = await call(method.upper(), path.replace("{", "").replace("}", ""))
                assert response.status_code == 401, (method, path)
    await call.refused("forbidden", "GET", "/metrics", headers=known)
    await call.refused("user_mismatch", "GET", "/sessions", params={"user_id": "bob"}, headers=known)
    await call.refused("user_mismatch", "POST", "/chat", json={"message": "Hi", "user_id": "bob"}, headers=known)


async def test_a_session_that_is_answering_is_as_described(serve: Serve) -> None:
    call = await caller(await serve(STREAM_DELAY="0.2"))
    body = {"message": LONG, "session_id": "busy"}
    run = (await call("POST", "/chat", json=body, headers={"Prefer": "respond-async"})).json()
    session = (await call("GET", "/sessions/busy")).json()
    resuming = asyncio.create_task(call("GET", "/api/chat/busy/stream"))
    assert session["active_run"]["run_id"] == run["run_id"]
    refused = await call.refused("run_in_progress", "POST", "/chat", json=body)
    assert refused.json()["run_id"] == run["run_id"]
    following = asyncio.create_task(call("GET", "/sessions/busy/events", params={"after": f"{run['run_id']}.0"}))
    await asyncio.sleep(0)
    assert (await call("POST", f"/runs/{run['run_id']}/cancel")).json()["status"] == "cancelled"
    assert "event: run.cancelled" in (await following).text
    assert '"type": "abort"' in (await resuming).text


async def test_refusals_are_as_described(serve: Serve) -> None:
    call = await caller(await serve(MAX_BODY_BYTES="1000"))
    run_id = (await call("POST", "/chat", json={"message": "Hi", "session_id": "one"})).headers["x-run-id"]
    said = {"json": {"message": "Ho", "session_id": "one"}}
    for path in ("/chat", "/api/chat", "/chatkit", "/query", "/query/stream", f"/runs/{run_id}/retry", "/sessions"):
        await call.refused("invalid_json", "POST", path, content="{", headers={"Content-Type": "application/json"})
        await call.refused("unsupported_media_type", "POST", path, content="message=Hi")
        await call.refused("body_too_large", "POST", path, json={"message": "x" * 1000})
    for path in ("/chat", "/api/chat", "/chatkit", "/query", "/query/stream"):
        assert (await call.refused("invalid_request", "POST", path, json={})).json()["errors"]
    for path, body in (
        ("/chat", {"message": "Hi"}),
        ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/query", {"prompt": "Hi"}),
        ("/query/stream", {"prompt": "Hi"}),
        (f"/runs/{run_id}/retry", {}),
    ):
        await call.refused("model_not_allowed", "POST", path, json={**body, "model": "gpt-4o"})
    await call.refused("model_not_allowed", "GET", "/chat", params={"message": "Hi", "model": "gpt-4o"})
    await call.refused("invalid_request", "GET", "/chat")
    unknown = {"template": "unknown"}
    for method, path in (("POST", "/chat"), ("POST", "/api/chat"), ("POST", "/sessions"), ("PATCH", "/sessions/one")):
        asked = {"message": "Hi", "messages": [{"role": "user", "content": "Hi"}], **unknown}
        await call.refused("template_unknown", method, path, json=asked)
    await call.refused("template_unknown", "GET", "/chat", params={"message": "Hi", **unknown})
    await call.refused("invalid_request", "GET", "/search", params={"q": "?"})
    await call.refused("session_exists", "POST", "/sessions", json={"session_id": "one"})
    await call.refused("invalid_request", "PATCH", "/sessions/one", json={"title": "x" * 201})
    await call.refused("invalid_request", "GET", "/sessions", params={"after": "x"})
    await call.refused("invalid_request", "GET", "/records", params={"after": "x"})
    await call.refused("invalid_request", "GET", "/sessions/one/messages", params={"before": "x"})

    for cursor, code in (("x", "invalid_cursor"), (f"{run_id}.1", "cursor_mismatch"), ("run_x.1", "not_found")):
        await call.refused(code, "POST", "/chat", headers={"Last-Event-ID": cursor}, **said)
    await call.refused("invalid_cursor", "GET", "/sessions/one/events", params={"after": "3"})
    await call.refused("cursor_mismatch", "GET", f"/runs/{run_id}/events", params={"after": "run_x.1"})
    await call.refused("cursor_ahead", "GET", f"/runs/{run_id}/events", params={"after": "99"})
    key = {"Idempotency-Key": "key"}
    await call("POST", "/chat", json={"message": "Hi"}, headers=key)
    await call.refused("idempotency_conflict", "POST", "/chat", json={"message": "Ho"}, headers=key)

    for method in ("GET", "POST"):
        await call.refused("invalid_request", method, "/doctor/stream", params={"silence": 301})
        await call.refused("invalid_cursor", method, "/doctor/stream", headers={"Last-Event-ID": f"{run_id}.1"})
    await call.refused("body_too_large", "POST", "/doctor/stream", content="x" * 1001)

    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
        await call.refused("not_found", method, f"/runs/nobody{path}")
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/messages"), ("GET", "/events")):
        await call.refused("not_found", method, f"/sessions/nobody{path}")


async def test_a_failing_model_is_as_described(serve: Serve) -> None:
    service = await serve(BASE_URL=f"http://127.0.0.1:{free_port()}/v1", MODEL_NAME="gone", MODEL_RETRIES="0")
    call = await caller(service)
    refused = await call.refused("upstream_unreachable", "POST", "/chat", json={"message": "Hi", "stream": False})
    assert refused.json()["retryable"] is True
    await call.refused("upstream_unreachable", "POST", "/query", json={"prompt": "Why?"})
    run = (await call("GET", f"/runs/{refused.json()['run_id']}")).json()
    assert run["error"]["code"] == "upstream_unreachable"
    stream = await call("POST", "/query/stream", json={"prompt": "Why?"})
    assert "event: run.failed" in stream.text


# --- the page -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def page(service: Service, watched: Watched) -> AsyncIterator[Page]:
    """The documentation, opened."""
    async with chromium() as browser:
        page = await browser.new_page()
        watched.add(page)
        await page.goto(f"{service.url}/docs")
        yield page


async def execute(page: Page, operation: str) -> None:
    block = page.locator(f"#operations-{operation}")
    await block.click()
    await block.get_by_role("button", name="Try it out").click()
    await block.get_by_role("button", name="Execute").click()


async def test_page_shows_every_operation(service: Service, page: Page) -> None:
    document = (await service.client.get("/openapi.json")).json()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    await expect(page.locator(".opblock")).to_have_count(len(operations))
    for operation in operations[::10]:  # each takes the page seconds
        block = page.locator(f"#operations-{operation['tags'][0]}-{operation['operationId']}")
        await block.locator(".opblock-summary").click()
        await expect(block.locator(".responses-table")).to_contain_text("request_id")
    await expect(page.locator(".info .title")).to_contain_text("parley")
    await expect(page.locator(".errors-wrapper")).to_have_count(0)


async def test_page_asks_the_service(page: Page) -> None:
    await execute(page, "Service-health")
    answer = page.locator("#operations-Service-health .live-responses-table")
    await expect(answer).to_contain_text('"healthy"')


async def test_page_shows_a_whole_stream(page: Page) -> None:
    await execute(page, "Chat-post_chat")
    answer = page.locator("#operations-Chat-post_chat .live-responses-table")
    await expect(answer).to_contain_text("[DONE]")
    await expect(answer).to_contain_text("x-run-id")


async def test_files_are_sent_once(service: Service) -> None:
    first = await service.client.get("/static/swagger-ui-bundle.js")
    assert len(first.content) > 1_000_000
    again = await service.client.get("/static/swagger-ui-bundle.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "content-security-policy" in again.headers


async def test_policy_allows_no_other_origin_and_no_foreign_script(service: Service) -> None:
    policy = (await service.client.get("/docs")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
