"""What answers used and cost, and what Prometheus sees of them."""

import asyncio
import json
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from chat.usage import tokens_in
from tests.live.checks import check_run
from tests.live.dialogue import PROMPT, ask, dialogue, following
from tests.live.service import Service, text_of
from tests.patience import soon
from tests.upstream import End, chunk, done, finish, reply, sse

PRICES = json.dumps({"scripted": {"input": 2, "cached": 1, "output": 8}})

REPORTED = {
    "prompt_tokens": 30,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


async def scraped(service: Service) -> dict[tuple[str, str], float]:
    """Values by name and the one label that they have."""
    text = (await service.client.get("/metrics")).text
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_completed_run_has_the_reported_usage_and_a_stopped_one_an_estimate(tmp_path: Path) -> None:
    gate = asyncio.Event()
    whole = reply(chunk("Hello"), finish(), sse({"choices": [], "usage": REPORTED}), done())
    stopped = reply(chunk("As far as here."), gate)
    async with dialogue(tmp_path, whole, stopped, PRICES=PRICES) as (service, upstream):
        first, _ = await ask(service, "Hello", user_id="ann", session_id="one")
        assert (await check_run(service, first))["usage"] == {
            "input_tokens": 30,
            "output_tokens": 20,
            "source": "reported",
            "cached_tokens": 10,
            "reasoning_tokens": 5,
            "cost": 0.00021,
        }
        async with following(service, user_id="ann", session_id="two") as (stream, second, _):
            assert (await scraped(service))["parley_open_streams", ""] == 1
            request = await upstream.request(1)
            cancelled = (await service.client.post(f"/runs/{second}/cancel")).json()
            await soon(request.closed.wait())
            assert [frame.event async for frame in stream] == ["run.cancelled"]
        usage = cancelled["usage"]
        assert (usage["output_tokens"], usage["source"]) == (4, "estimated")
        assert usage["input_tokens"] == -(-len(request.body["messages"][0]["content"]) // 4)
        assert (await check_run(service, second))["usage"] == usage

        [both] = (await service.client.get("/usage?by=user")).json()["usage"]
        assert (both["key"], both["runs"], both["estimated_runs"]) == ("ann", 2, 1)
        assert both["input_tokens"] == 30 + usage["input_tokens"]
        assert both["cost"] == round(0.00021 + usage["cost"], 9)

        found = await scraped(service)
        assert found["parley_runs_total", "completed"] == found["parley_runs_total", "cancelled"] == 1
        assert found["parley_tokens_total", "output"] == 24
        assert found["parley_time_to_first_token_seconds_count", ""] == 2
        assert found["parley_open_streams", ""] == 0
        assert found["process_open_fds", ""] > 0


async def test_usage_survives_a_killed_process(tmp_path: Path) -> None:
    gate = asyncio.Event()
    usage = sse({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 10}})
    halves = reply(chunk("One half, "), gate), reply(chunk("the other."), finish(), usage, done())
    async with dialogue(tmp_path, *halves) as (service, _):
        async with following(service) as (_, run_id, _):
            await service.kill()
        await service.start()
        run = await check_run(service, run_id)
        assert await service.answer(run_id) == "One half, the other."
        assert (run["usage"]["output_tokens"], run["usage"]["source"]) == (3 + 10, "estimated")
        assert run["usage"]["input_tokens"] > 40
        [day] = (await service.client.get("/usage")).json()["usage"]
        assert (day["runs"], day["output_tokens"]) == (1, 13)


async def test_answer_that_goes_over_its_budget_is_cut_and_its_upstream_closed(tmp_path: Path) -> None:
    endless = reply(*[chunk("1234")] * 50, End.HOLD)
    async with dialogue(tmp_path, endless, MAX_RUN_TOKENS=str(tokens_in(PROMPT) + 20)) as (service, upstream):
        run_id, frames = await ask(service)
        await soon((await upstream.request(0)).closed.wait())
        assert (frames[-1].event, json.loads(frames[-1].data or "")["code"]) == ("run.failed", "too_many_tokens")
        assert await service.answer(run_id) == text_of(frames) == "1234" * 20
        run = await check_run(service, run_id)
        assert (run["usage"]["input_tokens"], run["usage"]["output_tokens"]) == (tokens_in(PROMPT), 20)
        refused = await service.client.post("/chat", json={"message": PROMPT * 3, "stream": False})
        assert (refused.status_code, refused.json()["code"]) == (502, "too_many_tokens")
        assert len(upstream.requests) == 1
