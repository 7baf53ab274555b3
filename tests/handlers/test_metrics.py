import asyncio
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from chat.errors import ModelError
from chat.events import Usage
from chat.ports import Finished
from tests.patience import soon
from tests.scripted import ScriptedModel
from tests.serving import Client, Exchange, served

REFUSED = ModelError("upstream_auth", "The model refused the key.", retryable=False)


async def scraped(client: Client) -> dict[str, Metric]:
    response = await client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def values(family: Metric, suffix: str = "") -> dict[str, float]:
    """By the one label that it has, or by nothing."""
    return {
        next(iter(sample.labels.values()), ""): sample.value
        for sample in family.samples
        if sample.name == family.name + suffix
    }


async def test_runs_tokens_and_errors_are_counted(client: Client, model: ScriptedModel) -> None:
    model.scripts = (["Hi", Finished("stop", Usage(30, 20))], [REFUSED])
    for _ in range(2):
        await client.post("/chat", json={"message": "Hello", "session_id": "s", "stream": False})
    found = await scraped(client)
    assert values(found["parley_runs"], "_total") == {"completed": 1, "failed": 1}
    assert values(found["parley_tokens"], "_total") == {"input": 30, "output": 20}
    assert values(found["parley_upstream_errors"], "_total") == {"upstream_auth": 1}
    assert values(found["parley_time_to_first_token_seconds"], "_count") == {"": 1}
    assert values(found["parley_journal_batch_events"], "_sum")[""] >= 3
    assert values(found["parley_journal_commit_seconds"], "_count")[""] >= 1
    assert "process_resident_memory_bytes" in found
    assert not [name for name in found if name.endswith("_created")]


async def test_open_streams_are_those_that_are_followed_now(
    client: Client, gate: asyncio.Event, model: ScriptedModel
) -> None:
    assert values((await scraped(client))["parley_open_streams"]) == {"": 0}
    gate.clear()
    exchange = Exchange(client.app, {"message": "Hello"})
    await exchange.until(b"Hello ")
    assert values((await scraped(client))["parley_open_streams"]) == {"": 1}
    gate.set()
    await soon(exchange.done)
    assert values((await scraped(client))["parley_open_streams"]) == {"": 0}


async def test_no_user_is_in_it(client: Client) -> None:
    body = {"message": "my secret", "session_id": "my-session", "user_id": "my-name", "stream": False}
    await client.post("/chat", json=body)
    assert "my" not in (await client.get("/metrics")).text


async def test_two_applications_in_one_process_count_for_themselves(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    async with served(folder) as other:
        await other.post("/chat", json={"message": "Hello", "stream": False})
        assert values((await scraped(other))["parley_runs"], "_total") == {"completed": 1}
        assert values((await scraped(client))["parley_runs"], "_total") == {}


async def test_metrics_can_be_switched_off(tmp_path: Path) -> None:
    async with served(tmp_path, metrics=False) as client:
        await client.post("/chat", json={"message": "Hello", "stream": False})
        response = await client.get("/metrics")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_one_of_several_workers_says_which_it_is(tmp_path: Path) -> None:
    async with served(tmp_path, workers=2) as client:
        found = await scraped(client)
    labels = {frozenset(sample.labels) for family in found.values() for sample in family.samples}
    assert all("worker" in names for names in labels)
