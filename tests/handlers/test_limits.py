import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from chat.events import Usage
from chat.ports import ChatModel, Finished
from handlers.errors import STATUS
from handlers.identity import OPERATOR
from server import create_app
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel
from tests.serving import running, settings_in

NOON = 1_763_812_800.0
"""Seconds since 1970, of a noon in UTC."""

FORM = re.compile(r'"[a-z]+-\d+s";r=\d+;t=\d+(, "[a-z]+-\d+s";r=\d+;t=\d+)*')


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def limited(
    folder: Path, clock: Callable[[], float], model: ChatModel | None = None, **settings: Any
) -> AsyncIterator[Starlette]:
    """The application with these limits and no others."""
    none = {"request_rate": "0", "run_rate": "0", "daily_tokens": 0, "max_client_runs": 0, "max_client_streams": 0}
    model = model or ScriptedModel(["Hello", STOP])
    app = create_app(settings_in(folder, **(none | settings)), model=model, clock=clock)
    async with running(app):
        yield app


def at(app: Starlette, address: str = "203.0.113.7") -> httpx.AsyncClient:
    """A client with this address."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://127.0.0.1")


async def say(client: httpx.AsyncClient, text: str = "Hi", **headers: str) -> httpx.Response:
    return await client.post("/chat", json={"message": text, "stream": False}, headers=headers)


def refused(response: httpx.Response, code: str, *policies: str) -> None:
    """The response says why not, and when to ask again."""
    assert (response.status_code, response.json()["code"]) == (STATUS[code], code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) >= 1
    if policies:
        kind = "quota-exceeded" if response.status_code == 429 else "temporary-reduced-capacity"
        assert response.json()["type"] == f"https://iana.org/assignments/http-problem-types#{kind}"
        assert response.json()["violated-policies"] == list(policies)


# --- requests


async def test_requests_are_limited_in_a_window_that_moves(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, request_rate="3/minute") as app, at(app) as client:
        seen = []
        for _ in range(3):
            response = await client.get("/sessions")
            assert response.headers["ratelimit-policy"] == '"requests-60s";q=3;w=60'
            seen.append(response.headers["ratelimit"])
            clock.now += 10
        assert seen == ['"requests-60s";r=2;t=60', '"requests-60s";r=1;t=50', '"requests-60s";r=0;t=40']
        late = await client.get("/sessions")
        refused(late, "rate_limited", "requests-60s")
        assert late.headers["retry-after"] == "30"
        assert late.headers["ratelimit"] == '"requests-60s";r=0;t=30'
        clock.now += 30
        assert (await client.get("/sessions")).status_code == 200
        refused(await client.get("/sessions"), "rate_limited")  # the two others are still in the window


async def test_all_windows_of_a_rate_hold(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, request_rate="1/second;2/minute") as app, at(app) as client:
        assert (await client.get("/sessions")).headers["ratelimit"] == '"requests-1s";r=0;t=1, "requests-60s";r=1;t=60'
        refused(await client.get("/sessions"), "rate_limited", "requests-1s")
        clock.now += 1
        assert (await client.get("/sessions")).status_code == 200
        refused(await client.get("/sessions"), "rate_limited", "requests-1s", "requests-60s")
        clock.now += 1
        refused(await client.get("/sessions"), "rate_limited", "requests-60s")


async def test_each_address_has_its_own_share_and_an_ipv6_network_one(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, request_rate="1/minute") as app:
        for address, status in [
            ("203.0.113.7", 200),
            ("203.0.113.7", 429),
            ("::ffff:203.0.113.7", 429),
            ("203.0.113.8", 200),
            ("2001:db8:0:1::1", 200),
            ("2001:db8:0:1:ffff::2", 429),
            ("2001:db8:0:2::1", 200),
            ("fe80::1%eth0", 200),
            ("fe80::2%eth1", 429),
            ("unknown", 200),
            ("unknown", 429),
        ]:
            async with at(app, address) as client:
                assert (await client.get("/sessions")).status_code == status, address


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "10.1.2.3"])
async def test_addresses_that_are_ones_own_are_not_counted(tmp_path: Path, clock: Clock, address: str) -> None:
    own = "127.0.0.0/8, ::1, 10.0.0.0/8"
    settings: dict[str, Any] = {"request_rate": "1/minute", "run_rate": "1/minute", "max_client_runs": 1}
    async with limited(tmp_path, clock, unlimited_addresses=own, **settings) as app, at(app, address) as client:
        for _ in range(3):
            assert (await say(client)).status_code == 200
            response = await client.get("/sessions")
            assert response.status_code == 200
            assert "ratelimit" not in response.headers


async def test_who_asks_after_the_service_is_not_counted(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, request_rate="1/minute") as app, at(app) as client:
        for path in ("/health", "/chat/health", "/ready", "/metrics", "/static/app.js", "/sessions"):
            assert (await client.get(path)).status_code == 200
        refused(await client.get("/sessions"), "rate_limited")


async def test_openai_clients_are_told_in_their_way(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, request_rate="1/minute", daily_tokens=1) as app, at(app) as client:
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        response = await client.get("/v1/models")
        assert (response.status_code, response.headers["retry-after"]) == (429, "60")
        assert response.json()["error"] | {"message": ""} == {
            "message": "", "type": "requests", "param": None, "code": "rate_limited",
            "violated-policies": ["requests-60s"],
        }  # fmt: skip
        clock.now += 60
        response = await client.post("/v1/chat/completions", json=body)
        assert (response.status_code, response.json()["error"]["type"]) == (429, "tokens")
        assert response.headers["x-should-retry"] == "false"  # those clients would ask all day


async def test_pages_may_read_what_is_left(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, request_rate="1/minute") as app, at(app) as client:
        for _ in range(2):
            response = await client.get("/sessions", headers={"Origin": "http://localhost:5173"})
            exposed = {name.strip().lower() for name in response.headers["access-control-expose-headers"].split(",")}
            assert exposed >= {"ratelimit", "ratelimit-policy", "retry-after"}
        assert response.status_code == 429


# --- runs


async def test_runs_have_a_rate_of_their_own(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, request_rate="100/minute", run_rate="2/minute;3/day") as app, at(app) as client:
        first = await say(client)
        assert FORM.fullmatch(first.headers["ratelimit"])
        assert first.headers["ratelimit"].endswith('"runs-60s";r=1;t=60, "runs-86400s";r=2;t=86400')
        assert (await say(client)).status_code == 200
        refused(await say(client), "rate_limited", "runs-60s")
        assert (await client.get("/sessions")).status_code == 200
        clock.now += 60
        assert (await say(client)).status_code == 200
        refused(await say(client), "rate_limited", "runs-86400s")


async def test_what_starts_no_run_costs_no_run(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, run_rate="1/minute") as app, at(app) as client:
        assert (await client.post("/chat", json={"message": ""})).status_code == 422
        assert "ratelimit" not in (await client.get("/sessions")).headers  # there is none for it
        assert (await client.post("/chat", json={"message": "Hi", "parent_id": "nothing"})).status_code == 422
        assert (await say(client)).status_code == 200


async def test_runs_that_are_asked_for_at_once_do_not_slip_through(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, run_rate="3/minute") as app, at(app) as client:
        responses = await asyncio.gather(*[say(client) for _ in range(10)])
    assert sorted(response.status_code for response in responses) == [200] * 3 + [429] * 7


BODIES: dict[str, dict[str, Any]] = {
    "/chat": {"message": "Hi"},
    "/api/chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "/query": {"prompt": "Hi"},
    "/query/stream": {"prompt": "Hi"},
    "/ag-ui": {"threadId": "one", "runId": "mine", "messages": [{"id": "m", "role": "user", "content": "Hi"}]},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/responses": {"input": "Hi"},
}


@pytest.mark.parametrize("path", BODIES)
async def test_what_is_asked_again_costs_nothing_and_is_never_refused(tmp_path: Path, clock: Clock, path: str) -> None:
    async with (
        limited(
            tmp_path, clock, request_rate="2/minute", run_rate="1/minute", max_client_runs=1, daily_tokens=1
        ) as app,
        at(app) as client,
    ):
        first = await client.post(path, json=BODIES[path], headers={"Idempotency-Key": "k"})
        assert first.status_code == 200
        left = first.headers["ratelimit"]
        for _ in range(5):
            again = await client.post(path, json=BODIES[path], headers={"Idempotency-Key": "k"})
            assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
            assert again.headers["x-run-id"] == first.headers["x-run-id"]
            assert again.headers["ratelimit"] == left
        other = await client.post(path, json={**BODIES[path], "runId": "other"}, headers={"Idempotency-Key": "other"})
        assert other.status_code == 429
        assert (await client.get("/sessions")).status_code == 429  # that one was counted
        again = await client.post(path, json=BODIES[path], headers={"Idempotency-Key": "k"})
        assert again.headers["x-run-id"] == first.headers["x-run-id"]


async def test_a_retry_that_is_asked_again_costs_nothing(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, request_rate="2/minute") as app, at(app) as client:
        run_id = (await say(client)).headers["x-run-id"]
        first = await client.post(f"/runs/{run_id}/retry", json={}, headers={"Idempotency-Key": "k"})
        assert first.status_code == 200
        again = await client.post(f"/runs/{run_id}/retry", json={}, headers={"Idempotency-Key": "k"})
        assert again.headers["x-run-id"] == first.headers["x-run-id"]
        refused(await client.post(f"/runs/{run_id}/retry", json={}), "rate_limited", "requests-60s")


async def test_a_key_with_another_body_is_told_so_whatever_the_limits(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, run_rate="1/minute") as app, at(app) as client:
        await say(client, "One", **{"Idempotency-Key": "k"})
        assert (await say(client, "Two", **{"Idempotency-Key": "k"})).json()["code"] == "idempotency_conflict"


# --- at a time


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


async def begin(client: httpx.AsyncClient, session: str) -> httpx.Response:
    body = {"message": "Hi", "session_id": session, "on_busy": "queue"}
    return await client.post("/chat", json=body, headers={"Prefer": "respond-async"})


async def ended(app: Starlette, started: httpx.Response) -> None:
    await soon(app.state.engine.result(started.json()["run_id"]))


async def test_a_client_has_so_many_runs_at_a_time_also_those_that_wait(
    tmp_path: Path, clock: Clock, gate: asyncio.Event
) -> None:
    model = ScriptedModel([gate, STOP])
    async with limited(tmp_path, clock, model, max_client_runs=2) as app, at(app) as client, at(app, "::2") as other:
        running_, queued = await begin(client, "one"), await begin(client, "one")
        assert (running_.status_code, queued.json()["status"]) == (202, "queued")
        refused(await begin(client, "two"), "too_many_runs", "runs")
        assert (await begin(other, "three")).status_code == 202
        await client.post(f"/runs/{queued.json()['run_id']}/cancel")
        assert (await begin(client, "two")).status_code == 202
        refused(await begin(client, "two"), "too_many_runs", "runs")
        gate.set()
        await ended(app, running_)
        assert (await begin(client, "four")).status_code == 202


async def test_a_process_has_so_many_runs_at_a_time(tmp_path: Path, clock: Clock, gate: asyncio.Event) -> None:
    model = ScriptedModel([gate, STOP])
    async with limited(tmp_path, clock, model, max_runs=2) as app, at(app) as client, at(app, "127.0.0.1") as own:
        first = [await begin(client, "one"), await begin(own, "two")]
        for each in (client, own):
            refused(await begin(each, "three"), "service_full", "runs")
        gate.set()
        for started in first:
            await ended(app, started)
        assert (await begin(own, "three")).status_code == 202


async def follow(client: httpx.AsyncClient, run_id: str, **query: str) -> httpx.Response:
    return await client.get(f"/runs/{run_id}/events", params=query)


def sent_away(response: httpx.Response, least: int = 500, most: int = 6_000) -> None:
    """As EventSource has to be, which would give up at any status but 200."""
    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (found := re.fullmatch(r"retry: (\d+)\n\n", response.text)), response.text
    assert least <= int(found[1]) <= most


STREAMS: Sequence[tuple[dict[str, int], bool]] = [
    ({"max_streams": 2}, True),
    ({"max_client_streams": 2}, False),
    ({"max_followers": 2}, True),
]


@pytest.mark.parametrize(("caps", "all_clients"), STREAMS)
async def test_so_many_streams_are_open_at_a_time(
    tmp_path: Path, clock: Clock, gate: asyncio.Event, caps: dict[str, int], all_clients: bool
) -> None:
    model = ScriptedModel([gate, "Hello", STOP])
    async with limited(tmp_path, clock, model, **caps) as app, at(app) as client, at(app, "::2") as other:
        run_id = (await begin(client, "one")).json()["run_id"]
        open_ = [asyncio.create_task(follow(client, run_id)) for _ in range(2)]
        seats = app.state.limits
        await soon(_until(lambda: seats.open_streams == 2))
        sent_away(await follow(client, run_id))
        posted = await client.post(
            "/chat", json={"message": "Hi", "session_id": "one"}, headers={"Last-Event-ID": f"{run_id}.0"}
        )
        code = "too_many_streams" if "max_client_streams" in caps else "service_full"
        refused(posted, code)
        if all_clients:
            sent_away(await follow(other, run_id))
        gate.set()
        assert ["Hello" in (await soon(stream)).text for stream in open_] == [True, True]
        assert seats.open_streams == 0
        assert "Hello" in (await follow(client, run_id)).text


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0)


@pytest.mark.parametrize(("cap", "all_clients"), [("max_replays", True), ("max_client_replays", False)])
async def test_so_many_answers_are_read_again_at_a_time(
    tmp_path: Path, clock: Clock, gate: asyncio.Event, cap: str, all_clients: bool
) -> None:
    gate.set()
    async with limited(tmp_path, clock, ScriptedModel(["Hello", STOP], [gate, STOP]), **{cap: 1}) as app:
        limits = app.state.limits
        async with at(app) as client, at(app, "::2") as other:
            run = (await say(client)).headers["x-run-id"]
            ended_run = await app.state.engine.run(run)
            leave = limits.seat(limits.clients.who({"client": ("203.0.113.7", 1)}, OPERATOR), ended_run)
            sent_away(await follow(client, run))
            assert ("Hello" in (await follow(other, run)).text) is not all_clients
            gate.clear()
            live = (await begin(client, "live")).json()["run_id"]
            following = asyncio.create_task(follow(client, live))  # is no replay
            await soon(_until(lambda: limits.open_streams == 2))
            gate.set()
            assert "[DONE]" in (await soon(following)).text
            leave()
            assert "Hello" in (await follow(client, run)).text


async def test_eventsource_is_sent_away_until_there_is_room(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, request_rate="2/minute", run_rate="5/hour") as app, at(app) as client:
        run_id = (await say(client)).headers["x-run-id"]
        assert "Hello" in (await follow(client, run_id)).text
        for path in (f"/runs/{run_id}/events", "/sessions/one/events", "/chat?message=Hi", "/doctor/stream"):
            sent_away(await client.get(path), 60_500, 63_000)
        refused(await client.get(f"/runs/{run_id}"), "rate_limited")
        clock.now += 60
        assert "Hello" in (await follow(client, run_id)).text


async def test_eventsource_is_told_if_it_would_wait_for_long(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, run_rate="1/day") as app, at(app) as client:
        assert "Hello" in (await client.get("/chat?message=Hi")).text
        refused(await client.get("/chat?message=Ho"), "rate_limited", "runs-86400s")


# --- tokens


USED = Finished("stop", Usage(60, 40, "reported"))


async def test_an_address_has_so_many_tokens_a_day(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, ScriptedModel(["Hi", USED]), daily_tokens=200) as app, at(app) as client:
        for _ in range(2):
            assert (await say(client)).status_code == 200
        response = await say(client)
        refused(response, "budget_spent")
        assert response.headers["retry-after"] == str(12 * 3600)
        assert (response.json()["daily_tokens"], response.json()["used_tokens"]) == (200, 200)
        refused(await client.get("/chat?message=Hi"), "budget_spent")  # no moment: EventSource may give up
        async with at(app, "203.0.113.8") as other:
            assert (await say(other)).status_code == 200
        clock.now += 12 * 3600
        assert (await say(client)).status_code == 200


async def test_a_body_that_names_another_user_has_no_other_budget(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, ScriptedModel(["Hi", USED]), daily_tokens=100) as app, at(app) as client:
        assert (await client.post("/chat", json={"message": "Hi", "user_id": "ann"})).status_code == 200
        refused(await client.post("/chat", json={"message": "Hi", "user_id": "ben"}), "budget_spent")


async def test_tokens_that_were_used_yesterday_are_gone(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, ScriptedModel(["Hi", USED]), daily_tokens=150) as app, at(app) as client:
        for _ in range(3):
            assert (await say(client)).status_code == 200
            clock.now += 86_400
