"""Summaries and titles on a real server: what is remembered, and that nobody waits for it."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.live.checks import check_run, member, until
from tests.live.conftest import Serve
from tests.live.dialogue import dialogue
from tests.live.service import PATIENCE, Frame, Service
from tests.live.workers import worker_ids
from tests.patience import soon
from tests.upstream import End, Reply, Upstream, chunk, completion, done, finish, refusal, reply

SMALL = {"CONTEXT_TOKENS": "150", "MODEL_RETRIES": "0"}
"""600 bytes: 450 for the history, and when it has 338 of them it is cut down to 225."""

FACT = "My name is Ann, of Rome"
KILLS = 8

HELD = reply(chunk("Ann lives "), End.HOLD)


def padded(text: str) -> str:
    return f"{text} ".ljust(80, ".")


def answer(text: str = "I see") -> Reply:
    """An exchange of two such texts takes 192 bytes: behind the second answer, the first one is folded."""
    return completion(padded(text))


async def say(service: Service, text: str, **body: object) -> dict[str, Any]:
    """The run, when it has answered."""
    return await check_run(service, await service.begin(padded(text), session_id="one", **body))


async def session_with(service: Service, member: str) -> dict[str, Any]:
    """The session, once it has this: the way that every client learns of it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(httpx.TransportError):  # of a worker that has been killed
                session: dict[str, Any] = (await service.client.get("/sessions/one")).json()
                if session[member]:
                    return session
            await asyncio.sleep(0.02)


async def going(service: Service, kind: str = "summary") -> str:
    """The id of the run that makes it, when something of it is stored."""
    sql = "SELECT runs.id FROM runs JOIN journal ON run_id = runs.id WHERE kind = ? AND status = 'running'"
    await until(lambda: bool(service.rows(sql, kind)))
    return str(service.rows(sql, kind)[0][0])


def sent(upstream: Upstream, number: int = -1) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in upstream.requests[number].body["messages"]]


def said_in(log: list[Frame]) -> str:
    return "".join(str(member(frame, "text")) for frame in log if frame.event == "text.delta")


# --- what is remembered


async def test_early_fact_survives_through_the_summary_alone(tmp_path: Path) -> None:
    once = completion("Ann lives in Rome.")
    replies = [answer(), answer(), once, answer(), once, answer(), once, answer()]
    async with dialogue(tmp_path, *replies, **SMALL) as (service, upstream):
        first = await say(service, FACT)
        for number, text in enumerate(["Tea is nice", "So is milk", "And cake"]):
            await say(service, text)
            await upstream.request(2 + 2 * number)  # the summary's
            kept = number + 1
            await until(lambda: len(service.rows("SELECT 1 FROM runs WHERE text IS NOT NULL")) == kept)  # noqa: B023
        summary = (await service.client.get("/sessions/one")).json()["summary"]
        messages = (await service.client.get("/sessions/one/messages")).json()["messages"]
        assert (messages[1]["message_id"], messages[5]["message_id"]) == (first["answer_id"], summary["up_to"])
        await say(service, "Who am I?")
        told, *rest = sent(upstream, 7)
        assert told[0] == "system"
        assert "<summary>\nAnn lives in Rome.\n</summary>" in told[1]
        assert rest[-1] == ("user", padded("Who am I?"))
        assert not any("Ann" in text for _, text in rest)
        records = [sent(upstream, number)[1][1] for number in (2, 4, 6)]
        assert [FACT in record for record in records] == [True, False, False]
        assert ['{"summary": "Ann lives in Rome."}' in record for record in records] == [False, True, True]
        assert "Tea is nice" in records[1]  # what lies between is in one of the two
        assert "So is milk" in records[2]


async def test_echo_remembers_without_a_key(serve: Serve) -> None:
    service = await serve(CONTEXT_TOKENS="150", TITLES="true", STREAM_DELAY="0")
    for text in (FACT, "Tea is nice", "So is milk"):
        await say(service, text)
    session = await session_with(service, "title")
    assert session["title"].startswith("My name is Ann, of Rome")
    assert (await session_with(service, "summary"))["summary"]["text"].startswith("My name is Ann")


async def test_summary_holds_for_a_retry_and_not_for_an_edit_before_its_end(tmp_path: Path) -> None:
    replies = [answer(), answer(), completion("Ann lives in Rome."), answer(), answer(), answer("Anew")]
    async with dialogue(tmp_path, *replies, **SMALL | {"SUMMARY_MODEL": "custom/cheap"}) as (service, upstream):
        await say(service, FACT)
        second = await say(service, "Tea is nice")
        kept = (await session_with(service, "summary"))["summary"]
        assert upstream.requests[2].body["model"] == "cheap"
        response = await service.client.post(f"/runs/{second['run_id']}/retry", json={"stream": False})
        assert response.status_code == 200
        assert sent(upstream)[0][0] == "system"
        assert (await service.client.get("/sessions/one")).json()["summary"] == kept
        edited = await say(service, "My name is Bob", parent_id=None)
        assert sent(upstream) == [("user", padded("My name is Bob"))]
        session = (await service.client.get("/sessions/one")).json()
        assert (session["leaf_id"], session["summary"]) == (edited["answer_id"], None)
        run = (await service.client.get(f"/runs/{kept['run_id']}")).json()
        assert (run["kind"], run["status"], run["model"]) == ("summary", "completed", "custom/cheap")


async def test_title_comes_behind_the_first_answer_and_the_clients_own_stays(tmp_path: Path) -> None:
    gate = asyncio.Event()
    held = reply(chunk("Tea"), gate, chunk(" for two"), finish(), done())
    replies = [answer(), completion('"Ann in Rome."\n'), answer(), held]
    async with dialogue(tmp_path, *replies, TITLES="true") as (service, _):
        await say(service, FACT)
        assert (await session_with(service, "title"))["title"] == "Ann in Rome"
        run_id = await service.begin("Tea, please", session_id="two")
        await check_run(service, run_id)
        titling = await going(service, "title")
        await service.client.patch("/sessions/two", json={"title": "Mine"})
        gate.set()
        assert said_in(await service.follow(titling, format="events")) == "Tea for two"
        assert (await service.client.get("/sessions/two")).json()["title"] == "Mine"


# --- nobody waits for it


async def test_answers_do_not_wait_for_a_summary_that_hangs_nor_does_the_shutdown(tmp_path: Path) -> None:
    async with dialogue(tmp_path, answer(), answer(), HELD, answer(), **SMALL) as (service, upstream):
        await say(service, FACT)
        await say(service, "Tea is nice")
        run_id = await going(service)
        session = (await service.client.get("/sessions/one")).json()
        assert (session["active_run"], session["summary"]) == (None, None)
        assert (await service.client.get("/sessions/one/events")).status_code == 204
        for text in ("So is milk", "And cake"):
            assert (await say(service, text))["status"] == "completed"
        assert len(upstream.requests) == 5
        cancelled = (await service.client.post(f"/runs/{run_id}/cancel")).json()
        assert (cancelled["kind"], cancelled["status"]) == ("summary", "cancelled")
        assert [frame.event for frame in await service.follow(run_id, format="events")] == [
            "run.started", "text.delta", "run.cancelled",
        ]  # fmt: skip
        await soon(upstream.requests[2].closed.wait())


async def test_shutdown_does_not_wait_for_a_summary(tmp_path: Path) -> None:
    async with dialogue(tmp_path, answer(), answer(), HELD, **SMALL) as (service, _):
        await say(service, FACT)
        await say(service, "Tea is nice")
        await going(service)  # in the end the service is told to stop, and would wait for an answer for ten minutes


async def test_session_is_deleted_while_its_summary_is_made(tmp_path: Path) -> None:
    async with dialogue(tmp_path, answer(), answer(), HELD, **SMALL) as (service, upstream):
        await say(service, FACT)
        await say(service, "Tea is nice")
        await going(service)
        assert (await service.client.delete("/sessions/one")).status_code == 204
        await soon(upstream.requests[2].closed.wait())
        for table in ("sessions", "messages", "runs", "log_pages"):
            assert service.rows(f"SELECT 1 FROM {table}") == []
        assert service.rows("SELECT 1 FROM journal WHERE body LIKE '%Ann%'") == []


# --- crashes


async def test_kill_in_the_middle_of_a_summary_loses_nothing(tmp_path: Path) -> None:
    rest = reply(chunk("in Rome."), finish(), done())
    async with dialogue(tmp_path, answer(), answer(), HELD, rest, answer(), **SMALL) as (service, upstream):
        await say(service, FACT)
        await say(service, "Tea is nice")
        run_id = await going(service)
        await service.restart()
        kept = (await session_with(service, "summary"))["summary"]
        assert (kept["text"], kept["run_id"]) == ("Ann lives in Rome.", run_id)
        log = await service.follow(run_id, format="events")
        assert [frame.event for frame in log] == ["run.started", "text.delta", "seam", "text.delta", "run.completed"]
        assert [frame.seq for frame in log] == list(range(5))
        assert said_in(log) == kept["text"]
        assert sent(upstream, 3)[:2] == sent(upstream, 2)
        await service.restart()
        assert (await service.client.get("/sessions/one")).json()["summary"] == kept
        await say(service, "Who am I?")
        assert "Ann lives in Rome." in sent(upstream, 4)[0][1]
        messages = (await service.client.get("/sessions/one/messages")).json()["messages"]
        assert len(messages) == 6


async def test_kills_at_random_leave_no_run_behind_and_no_summary_of_what_is_not_there(serve: Serve) -> None:
    service = await serve(**SMALL, TITLES="true", STREAM_DELAY="0.005", LEASE_SECONDS="1")
    draw = random.Random(5)
    said = 0
    for _ in range(KILLS):
        with suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(draw.uniform(0.05, 0.6)):
                while True:
                    body = {"message": padded(f"Fact {said}"), "session_id": "one", "on_busy": "queue", "stream": False}
                    said += (await service.client.post("/chat", json=body)).is_success
        await service.restart()
    await say(service, "The last one", on_busy="queue")
    await until(lambda: not service.rows("SELECT 1 FROM runs WHERE finished_at IS NULL"))
    ends = set(service.rows("SELECT DISTINCT kind = 'answer', status FROM runs"))
    assert ends <= {(1, "completed"), (0, "completed"), (0, "interrupted")}  # if it came to no word in three lives
    for run_id, text in service.rows("SELECT id, text FROM runs WHERE kind <> 'answer' AND status = 'completed'"):
        log = await service.follow(str(run_id), format="events")
        assert [frame.seq for frame in log] == list(range(len(log)))
        assert said_in(log) == text
    summary = (await session_with(service, "summary"))["summary"]
    assert service.rows("SELECT 1 FROM messages WHERE id = ? AND role = 'assistant'", summary["up_to"])
    told = [int(line.removeprefix("Fact ").removesuffix("…")) for line in summary["text"].split("\n")]
    assert told == sorted(told)  # twice where a client did not hear that its message had arrived
    assert set(told) == set(range(min(told), max(told) + 1))
    [(titles,)] = service.rows("SELECT count(text) FROM runs WHERE kind = 'title'")
    assert titles == 1


@asynccontextmanager
async def two_workers(serve: Serve, *replies: Reply) -> AsyncIterator[tuple[Service, Upstream]]:
    async with Upstream(*replies) as upstream:
        settings = SMALL | {"BASE_URL": upstream.base_url, "MODEL_NAME": "scripted", "WORKERS": "2"}
        yield await serve(**settings, LEASE_SECONDS="2"), upstream


async def test_summary_of_a_worker_that_dies_is_finished_by_the_other(serve: Serve) -> None:
    rest = reply(chunk("in Rome."), finish(), done())
    async with two_workers(serve, answer(), answer(), HELD, rest) as (service, _):
        await say(service, FACT)
        await say(service, "Tea is nice")
        run_id = await going(service)
        [(lock,)] = service.rows("SELECT lock FROM owners JOIN runs ON owner = owners.id WHERE runs.id = ?", run_id)
        holder = next(worker for worker in worker_ids(service) if holds(worker, str(lock)))
        os.kill(holder, signal.SIGKILL)
        kept = (await session_with(service, "summary"))["summary"]
        assert (kept["text"], kept["run_id"]) == ("Ann lives in Rome.", run_id)


def holds(process: int, lock: str) -> bool:
    """Whether the process has this file open."""
    return any(str(file.readlink()).endswith(lock) for file in Path(f"/proc/{process}/fd").iterdir())


# --- budgets


async def test_fallback_with_a_smaller_window_is_sent_what_fits_it(serve: Serve) -> None:
    long = completion(*["word "] * 200)
    async with Upstream(long, long, refusal(503)) as own, Upstream(completion("Here I am.")) as other:
        service = await serve(
            BASE_URL=own.base_url, SUMMARIES="false", MODEL_NAME="own", OLLAMA_BASE_URL=other.base_url,
            MODEL_RETRIES="0", FALLBACK_MODELS="ollama/other", ALLOWED_MODELS="ollama/other",
            MODEL_CONTEXT_TOKENS='{"ollama/other": 300}',
        )  # fmt: skip
        models = (await service.client.get("/models")).json()["models"]
        assert [(model["id"], model["context_tokens"]) for model in models] == [("own", 16_000), ("ollama/other", 300)]
        for text in ("One?", "Two?", "Three?"):
            await say(service, text)
        assert [len(request.body["messages"]) for request in own.requests] == [1, 3, 5]
        assert sent(other) == [("user", padded("Three?"))]
        again = await service.begin("Four?", session_id="one", model="ollama/other")
        await check_run(service, again)
        assert [text for _, text in sent(other)] == [padded("Three?"), "Here I am.", "Four?"]
