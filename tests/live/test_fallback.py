"""Two upstreams behind a real service: one is dead, and the other answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from chat.breaker import FAILURES
from tests.live.checks import settled
from tests.live.conftest import Serve
from tests.live.service import Frame, Service, free_port, read_all, text_of
from tests.upstream import End, Reply, Upstream, chunk, completion, done, finish, refusal, reply

Pair = tuple[Service, Upstream, Upstream]


class Pairs:
    """Starts a service whose model is at the first upstream and whose fallback is at the second."""

    def __init__(self, serve: Serve, stack: AsyncExitStack) -> None:
        self._serve = serve
        self._stack = stack

    async def start(self, first: Reply, second: Reply, **settings: str) -> Pair:
        own = await self._stack.enter_async_context(Upstream(first))
        other = await self._stack.enter_async_context(Upstream(second))
        models = {"BASE_URL": own.base_url, "MODEL_NAME": "own", "OLLAMA_BASE_URL": other.base_url}
        models |= {"FALLBACK_MODELS": "ollama/other", "MODEL_RETRIES": "0"}
        return await self._serve(**models | settings), own, other


@pytest.fixture
async def pairs(serve: Serve) -> AsyncIterator[Pairs]:
    async with AsyncExitStack() as stack:
        yield Pairs(serve, stack)


async def ask(service: Service, **body: object) -> list[Frame]:
    async with service.client.stream("POST", "/chat", json={"message": "Hi", "format": "events", **body}) as response:
        assert response.status_code == 200, await response.aread()
        return await read_all(response)


def selected(frames: list[Frame]) -> object:
    """What the log says of the model that answers."""
    return [json.loads(frame.data or "") for frame in frames if frame.event == "model.selected"]


async def test_fallback_answers_for_a_dead_upstream_which_is_then_left_alone(pairs: Pairs) -> None:
    service, own, other = await pairs.start(refusal(503), completion("Hello ", "there"))
    for number in range(FAILURES + 4):
        frames = await ask(service)
        cause = "upstream_unavailable"
        assert selected(frames) == [{"model": "ollama/other", "reason": "fallback", "cause": cause}], number
        assert [frame.event for frame in frames][:3] == ["run.started", "model.selected", "text.delta"]
        assert [frame.seq for frame in frames] == list(range(5))
        assert frames[-1].event == "run.completed"
    assert [request.body["model"] for request in own.requests] == ["own"] * FAILURES
    assert [request.body["model"] for request in other.requests] == ["other"] * (FAILURES + 4)
    assert (await service.client.get("/models")).json() == {
        "models": [{"id": "own", "provider": "custom", "default": True, "available": False}]
    }
    run_id = str(frames[0].id).rpartition(".")[0]
    run = await settled(service, run_id)
    assert (run["model"], run["status"]) == ("own", "completed")
    assert text_of(await service.follow(run_id)) == "Hello there"


async def test_fallback_answers_when_nobody_listens(pairs: Pairs) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    service, _, _ = await pairs.start(refusal(503), completion("Hi"), BASE_URL=nowhere)
    assert selected(await ask(service)) == [
        {"model": "ollama/other", "reason": "fallback", "cause": "upstream_unreachable"}
    ]


async def test_fallback_answers_for_a_model_whose_first_token_does_not_come(pairs: Pairs) -> None:
    service, own, _ = await pairs.start(reply(End.HOLD), completion("Hi"), FIRST_TOKEN_TIMEOUT="0.3")
    assert selected(await ask(service)) == [
        {"model": "ollama/other", "reason": "fallback", "cause": "upstream_timeout"}
    ]
    await asyncio.wait_for(own.requests[0].closed.wait(), 5)


async def test_first_token_may_take_longer_than_a_gap(pairs: Pairs) -> None:
    slow = reply(0.8, chunk("Hi"), chunk(" there"), finish(), done())
    service, _, other = await pairs.start(slow, completion(), FIRST_TOKEN_TIMEOUT="20", REQUEST_TIMEOUT="0.4")
    frames = await ask(service)
    assert frames[-1].event == "run.completed"
    assert other.requests == []
    slow_later = reply(chunk("Hi"), 20.0, finish())
    service, _, other = await pairs.start(slow_later, completion(), FIRST_TOKEN_TIMEOUT="20", REQUEST_TIMEOUT="0.4")
    frames = await ask(service)
    assert json.loads(frames[-1].data or "")["code"] == "upstream_timeout"
    assert other.requests == []


async def test_what_was_shown_is_never_followed_by_another_models_words(pairs: Pairs) -> None:
    service, _, other = await pairs.start(reply(chunk("Hello "), End.ABORT), completion("there"))
    frames = await ask(service)
    assert [frame.event for frame in frames] == ["run.started", "text.delta", "run.failed"]
    assert other.requests == []


async def test_text_that_is_refused_is_shown_to_nobody_else(pairs: Pairs) -> None:
    service, _, other = await pairs.start(refusal(400), completion("there"))
    frames = await ask(service)
    assert json.loads(frames[-1].data or "")["code"] == "upstream_rejected"
    assert other.requests == []


async def test_client_may_choose_a_model_and_no_other(pairs: Pairs) -> None:
    allowed = {"ALLOWED_MODELS": "ollama/chosen", "FALLBACK_MODELS": ""}
    service, own, other = await pairs.start(completion("a"), completion("b"), **allowed)
    frames = await ask(service, model="ollama/chosen")
    assert selected(frames) == []
    assert json.loads(frames[0].data or "")["model"] == "ollama/chosen"
    assert [request.body["model"] for request in other.requests] == ["chosen"]
    assert own.requests == []
    refused = await service.client.get("/chat", params={"message": "Hi", "model": "ollama/other"})
    assert (refused.status_code, refused.json()["code"]) == (422, "model_not_allowed")
