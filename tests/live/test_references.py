"""The calls of the systems that this service brings together, as they were published, and what they print."""

import asyncio
import json
from pathlib import Path

import requests

from tests.live.service import Service

HELLO = "Hello from the backend"


async def curl(service: Service, *arguments: str) -> str:
    """Run curl as a person would; its output."""
    here = [argument.replace("http://localhost:8000", service.url) for argument in arguments]
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "--max-time", "30", *here, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


def data_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("data:")]


JSON = ("-H", "Content-Type: application/json")


async def test_root_says_that_it_is_ok(service: Service) -> None:
    answer = json.loads(await curl(service, "http://localhost:8000/"))
    assert answer["status"] == "ok"
    assert answer["service"] == "parley"


async def test_health_endpoints_say_healthy(service: Service) -> None:
    for path in ("/health", "/chat/health"):
        answer = json.loads(await curl(service, f"http://localhost:8000{path}"))
        assert answer["status"] == "healthy"
        assert answer["service"]
        assert answer["version"]


async def test_chat_streams_the_message_back_word_by_word(service: Service) -> None:
    body = json.dumps({"message": HELLO, "session_id": "test123"})
    output = await curl(service, "-X", "POST", "http://localhost:8000/chat", *JSON, "-d", body)
    assert [line.rstrip() for line in data_lines(output)] == [
        "data: Hello", "data: from", "data: the", "data: backend", "data: [DONE]",
    ]  # fmt: skip


async def test_a_session_remembers_and_is_listed(service: Service) -> None:
    for message in ("Hi there", "What did I just say?"):
        body = json.dumps({"message": message, "session_id": "test-user-123"})
        await curl(service, "-X", "POST", "http://localhost:8000/chat", *JSON, "-d", body, "-N")
    listed = json.loads(await curl(service, "http://localhost:8000/sessions"))
    assert [session["session_id"] for session in listed["sessions"]] == ["test-user-123"]
    history = json.loads(await curl(service, "http://localhost:8000/sessions/test-user-123/messages"))
    assert [message["content"] for message in history["messages"]] == ["Hi there"] * 2 + ["What did I just say?"] * 2


async def test_a_session_without_a_user_gets_an_anonymous_one(service: Service) -> None:
    created = json.loads(await curl(service, "-X", "POST", "http://localhost:8000/sessions/create", *JSON, "-d", "{}"))
    assert created["user_id"].startswith("anonymous-")
    assert len(created["user_id"]) == len("anonymous-") + 36


async def test_two_users_talk_at_once_and_see_only_their_own(service: Service) -> None:
    async def create(user: str) -> str:
        body = json.dumps({"user_id": user})
        created = json.loads(
            await curl(service, "-X", "POST", "http://localhost:8000/sessions/create", *JSON, "-d", body)
        )
        assert created["user_id"] == user
        return str(created["session_id"])

    alice, again, bob = [await create(user) for user in ("alice", "alice", "bob")]
    said = {alice: "Hi I'm Alice", again: "Hi I'm still Alice", bob: "Hi I'm Bob"}
    outputs = await asyncio.gather(
        *[
            curl(service, "-X", "POST", "http://localhost:8000/chat", *JSON, "-d",
                 json.dumps({"message": message, "session_id": session}), "-N")
            for session, message in said.items()
        ]
    )  # fmt: skip
    for output, message in zip(outputs, said.values(), strict=True):
        assert "".join(line.removeprefix("data: ") for line in data_lines(output)) == f"{message}[DONE]"
    listed = json.loads(await curl(service, "http://localhost:8000/sessions?user_id=alice"))
    assert {session["session_id"] for session in listed["sessions"]} == {alice, again}
    fetched = json.loads(await curl(service, f"http://localhost:8000/sessions/{bob}"))
    assert (fetched["user_id"], fetched["message_count"]) == ("bob", 2)
    await curl(service, "-X", "DELETE", f"http://localhost:8000/sessions/{bob}")
    assert json.loads(await curl(service, f"http://localhost:8000/sessions/{bob}"))["code"] == "not_found"


async def test_query_answers_with_model_and_answer(service: Service) -> None:
    output = await curl(
        service, "-X", "POST", "http://localhost:8000/query", *JSON, "-d", '{"prompt": "What is Python?"}'
    )
    assert json.loads(output) == {"model": "echo", "answer": "What is Python?"}


async def test_query_stream_ends_without_a_mark(service: Service) -> None:
    output = await curl(
        service,
        "-X",
        "POST",
        "http://localhost:8000/query/stream",
        *JSON,
        "-d",
        '{"prompt": "What is AI?"}',
        "--no-buffer",
    )
    assert data_lines(output) == ["data: What ", "data: is ", "data: AI?"]


async def test_the_streamlit_frontends_reader_gets_every_chunk(service: Service) -> None:
    def read() -> list[str]:
        response = requests.post(
            f"{service.url}/query/stream", json={"prompt": "Explain quantum computing"}, stream=True, timeout=30
        )
        with response:
            return [line[6:].decode() for line in response.iter_lines() if line.startswith(b"data: ")]

    assert await asyncio.to_thread(read) == ["Explain ", "quantum ", "computing"]


async def test_api_chat_takes_messages_and_ends_with_done(service: Service) -> None:
    output = await curl(
        service, "-N", "-X", "POST", "http://localhost:8000/api/chat", *JSON, "-H", "Accept: text/event-stream",
        "-d", '{"messages":[{"role":"user","content":"Say hi"}]}',
    )  # fmt: skip
    assert data_lines(output) == ["data: Say ", "data: hi", "data: [DONE]"]


async def test_cors_lets_a_local_frontend_in(service: Service) -> None:
    headers = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,last-event-id,idempotency-key",
    }
    preflight = await service.client.options("/chat", headers=headers)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "http://localhost:3000"
    answer = await service.client.get("/health", headers={"Origin": "http://localhost:3000"})
    assert "X-Run-Id" in answer.headers["access-control-expose-headers"]
    foreign = await service.client.get("/health", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers


async def test_starting_needs_no_folder(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.settings["DATABASE_URL"] = "sqlite:///./data/deep/parley.db"
    async with service:
        assert (tmp_path / "data/deep/parley.db").exists()
