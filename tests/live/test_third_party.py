"""Answers that come through OpenAI-compatible servers of other people: aimock (npm) and LiteLLM's proxy.

Both are started as their users start them, and know nothing of us: what they send is not what we think they send.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.live.conftest import Serve
from tests.live.service import ROOT, Frame, free_port, read_all, text_of
from tests.programs import answering, node_with, running, unavailable

AIMOCK = ROOT / "node_modules/@copilotkit/aimock/dist/cli.js"
LITELLM = ROOT / ".venv-litellm/bin/litellm"

PROMPT = "One coffee, please"
ANSWER = "  Café au lait,\n\nwith two sugars.\n\t- “Voilà” 😀\n"
KEY = "sk-a-long-enough-key-that-is-used-in-tests-only"

CHUNK = 5
"""Characters in a chunk of aimock's."""


@dataclass(frozen=True, slots=True)
class ThirdParty:
    url: str

    @property
    def settings(self) -> dict[str, str]:
        return {"BASE_URL": f"{self.url}/v1", "OPENAI_API_KEY": KEY, "MODEL_NAME": "mocked"}


@asynccontextmanager
async def aimock(folder: Path) -> AsyncIterator[ThirdParty]:
    node = node_with("@copilotkit/aimock")
    fixture = folder / "fixture.json"
    fixture.write_text(json.dumps({"fixtures": [{"match": {"userMessage": PROMPT}, "response": {"content": ANSWER}}]}))
    third_party = ThirdParty(f"http://127.0.0.1:{(port := free_port())}")
    # Paced as a model paces itself. --strict: no invented answer to any other question.
    command: list[str | Path] = [node, AIMOCK, "--port", str(port), "--fixtures", fixture, "--strict"]
    command += ["--chunk-size", str(CHUNK), "--latency", "20"]
    async with running(command, folder, answering(f"{third_party.url}/__aimock/journal")):
        yield third_party


@asynccontextmanager
async def litellm(folder: Path) -> AsyncIterator[ThirdParty]:
    if not LITELLM.exists():
        unavailable("LiteLLM is not installed: VENV=.venv-litellm scripts/install.sh tests/third-party.txt")
    params = {"model": "openai/mocked", "api_key": "none", "mock_response": ANSWER}
    config = folder / "config.yaml"
    # YAML takes JSON, but not JSON's escaped surrogate pairs.
    listed = json.dumps({"model_list": [{"model_name": "mocked", "litellm_params": params}]}, ensure_ascii=False)
    config.write_text(listed, encoding="utf-8")
    third_party = ThirdParty(f"http://127.0.0.1:{(port := free_port())}")
    command: list[str | Path] = [
        LITELLM,
        "--config",
        config,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--telemetry",
        "False",
    ]
    # Without the local map it asks the internet for prices, and waits.
    env = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONUTF8": "1"}
    async with running(command, folder, answering(f"{third_party.url}/health/liveliness"), **env):
        yield third_party


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aimock_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ThirdParty]:
    async with aimock(tmp_path_factory.mktemp("aimock")) as third_party:
        yield third_party


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def litellm_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ThirdParty]:
    async with litellm(tmp_path_factory.mktemp("litellm")) as third_party:
        yield third_party


@pytest.fixture(params=["aimock_server", "litellm_server"])
def third_party(request: pytest.FixtureRequest) -> ThirdParty:
    started: ThirdParty = request.getfixturevalue(request.param)
    return started


async def post(url: str, body: Mapping[str, Any]) -> list[Frame]:
    headers = {"Authorization": f"Bearer {KEY}"}
    client = httpx.AsyncClient(trust_env=False)
    async with client, client.stream("POST", url, json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return await read_all(response)


async def test_the_third_party_itself_streams(third_party: ThirdParty) -> None:
    body = {"model": "mocked", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    *frames, end = await post(f"{third_party.url}/v1/chat/completions", body)
    assert end.data == "[DONE]"
    choices = [choice for frame in frames for choice in json.loads(frame.data or "")["choices"]]
    deltas = [text for choice in choices if (text := choice["delta"].get("content"))]
    assert len(deltas) > 1
    assert "".join(deltas) == ANSWER
    assert [choice["finish_reason"] for choice in choices if choice.get("finish_reason")] == ["stop"]


async def test_chat_streams_the_third_partys_answer(serve: Serve, third_party: ThirdParty) -> None:
    service = await serve(**third_party.settings)
    received = await post(f"{service.url}/chat", {"message": PROMPT})
    assert text_of(received) == ANSWER
    assert received[-1].data == "[DONE]"


async def test_query_returns_the_third_partys_answer(serve: Serve, third_party: ThirdParty) -> None:
    service = await serve(**third_party.settings)
    response = await service.client.post("/query", json={"prompt": PROMPT})
    assert response.json() == {"model": "mocked", "answer": ANSWER}


async def test_chat_keeps_the_third_partys_pace(serve: Serve, aimock_server: ThirdParty) -> None:
    service = await serve(**aimock_server.settings)
    received = await post(f"{service.url}/chat", {"message": PROMPT})
    deltas = [frame for frame in received if frame.data not in (None, "[DONE]")]
    assert len(deltas) > len(ANSWER) / CHUNK / 2  # a busy machine may merge some chunks, never most of them


async def test_the_third_party_is_asked_once_and_for_a_stream(serve: Serve, aimock_server: ThirdParty) -> None:
    service = await serve(**aimock_server.settings)
    async with httpx.AsyncClient(base_url=aimock_server.url, trust_env=False) as client:
        (await client.post("/__aimock/reset/journal")).raise_for_status()
        await post(f"{service.url}/chat", {"message": PROMPT})
        [asked] = (await client.get("/__aimock/journal", params={"method": "POST"})).json()
    assert asked["path"] == "/v1/chat/completions"
    assert (asked["body"]["model"], asked["body"]["stream"]) == ("mocked", True)
    assert asked["body"]["messages"] == [{"role": "user", "content": PROMPT}]


async def test_a_refused_key_fails_the_run_and_stays_secret(serve: Serve, litellm_server: ThirdParty) -> None:
    wrong = "sk-a-wrong-key-that-nobody-may-read"
    service = await serve(**litellm_server.settings | {"OPENAI_API_KEY": wrong})
    *_, end = await post(f"{service.url}/chat", {"message": PROMPT})
    assert (end.event, json.loads(end.data or "")["retryable"]) == ("run.failed", False)
    assert wrong not in f"{end.data} {service.log.read_text()}"
