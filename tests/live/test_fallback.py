"""Two upstreams behind a real service: one is dead, and the other answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chat.breaker import FAILURES
from chat.usage import tokens_in
from tests.live.checks import settled
from tests.live.conftest import Serve
from tests.live.service import Frame, Service, free_port, read_all, text_of
from tests.upstream import End, Reply, Upstream, calling, chunk, completion, done, finish, refusal, reply

Pair = tuple[Service, Upstream, Upstream]


class Pairs:
    """Starts a service whose model is at the first upstream and whose fallback is at the second."""

    def __init__(self, serve: Serve, stack: AsyncExitStack) -> None:
        self._serve = serve
        self._stack = stack

    async def start(self, first: Reply | Sequence[Reply], second: Reply, **settings: str) -> Pair:
        replies = [first] if isinstance(first, Reply) else first
        own = await self._stack.enter_async_context(Upstream(*replies))
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
        "models": [{"id": "own", "provider": "custom", "default": True, "available": False, "context_tokens": 16_000}]
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
        {"model": "ollama/other", "reason": "fallback", "cause": "upstream_timeout", "charged": ["own"]}
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


async def test_each_models_share_is_on_it_also_after_a_crash(pairs: Pairs) -> None:
    """The fallback answers the first step, the run's own model the second, and again when it was cut off by a crash."""
    arguments = {"feedback": "Lockers, please"}
    own_replies = reply(End.HOLD), reply(chunk("Noted, "), End.HOLD), completion("and thank you.")
    service, own, other = await pairs.start(
        own_replies,
        calling("call_1", "submit_feedback", arguments),
        FIRST_TOKEN_TIMEOUT="1",
        TOOLS="examples.town_hall",
        PRICES=json.dumps({"own": {"input": 1, "output": 2}, "ollama/other": {"input": 4, "output": 8}}),
    )
    run_id = await service.begin("Hi")
    async with service.stream("GET", f"/runs/{run_id}/events?format=events") as received:
        async for frame in received:
            if frame.event == "text.delta":
                break
        await service.kill()
    await service.start()
    run: Any = await service.ended(run_id)
    assert (len(own.requests), len(other.requests)) == (3, 1)
    assert selected(await service.follow(run_id, format="events")) == [
        {"model": "ollama/other", "reason": "fallback", "cause": "upstream_timeout", "charged": ["own"]},
        {"model": "own", "reason": "requested"},
    ]

    found = (await service.client.get("/usage?by=model")).json()["usage"]
    shares = {share["key"]: (share["input_tokens"], share["output_tokens"]) for share in found}
    asked = sum(tokens_in(message["content"]) for message in own.requests[0].body["messages"])
    called = tokens_in(json.dumps(arguments))
    told = sum(tokens_in(message["content"]) for message in own.requests[1].body["messages"][-1:])
    # Its timeout, what it was asked behind the tool's answer, and what it reports of the request after the crash.
    own_input = asked + (asked + called + told) + 7
    assert shares == {"ollama/other": (asked, called), "own": (own_input, tokens_in("Noted, ") + 1)}

    costs = {share["key"]: share["cost"] for share in found}
    assert costs["ollama/other"] == round((4 * asked + 8 * called) / 1e6, 9)
    usage = run["usage"]
    assert usage["input_tokens"] == asked + own_input
    assert usage["cost"] == round(sum(costs.values()), 9)
    [day] = (await service.client.get("/usage")).json()["usage"]
    assert (day["runs"], day["cost"], day["unpriced_tokens"]) == (1, usage["cost"], 0)
