"""What the operator's graphs are told: once a run or a commit."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from chat import generation
from chat.engine import Engine, Timing
from chat.errors import ModelError
from chat.events import Usage
from chat.policy import Policy
from chat.ports import Finished
from tests.scripted import ScriptedModel, Step, everything, message, opened

BUSY = ModelError("upstream_unavailable", "The model is busy.", retryable=True, transient=True)


class Notes:
    """A meter that keeps what it is told."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, Usage | None]] = []
        self.first: list[float] = []
        self.batches: list[int] = []
        self.seconds: list[float] = []
        self.failures: Counter[str] = Counter()

    def run_ended(self, outcome: str, usage: Usage | None) -> None:
        self.ends.append((outcome, usage))

    def first_token(self, seconds: float) -> None:
        self.first.append(seconds)

    def committed(self, events: int, seconds: float) -> None:
        self.batches.append(events)
        self.seconds.append(seconds)

    def upstream_failed(self, code: str) -> None:
        self.failures[code] += 1


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "FIRST_BACKOFF", 0.001)


async def noted(file: Path, *scripts: list[Step], policy: Policy | None = None) -> tuple[Notes, int]:
    """What the meter was told of one run, and how many events that had."""
    notes = Notes()
    async with opened(file) as store:
        engine = Engine(store, ScriptedModel(*scripts), policy or Policy(), Timing(window=0), meter=notes)
        async with engine.running():
            run = (await engine.start(message())).run
            return notes, len(await everything(engine, run.id))


async def test_end_is_told_once_with_what_was_used(file: Path) -> None:
    notes, _ = await noted(file, ["Hi ", Finished("stop", Usage(3, 1))])
    assert notes.ends == [("completed", Usage(3, 1))]


async def test_every_commit_is_told_with_its_events(file: Path) -> None:
    notes, events = await noted(file, ["Hi ", "there", Finished("stop")])
    assert sum(notes.batches) == events
    assert all(seconds > 0 for seconds in notes.seconds)


async def test_first_token_is_told_once_however_many_follow(file: Path) -> None:
    began = time.monotonic()
    notes, _ = await noted(file, ["Hi ", "there", Finished("stop")])
    [seconds] = notes.first
    assert 0 < seconds < time.monotonic() - began


async def test_run_that_says_nothing_has_no_first_token(file: Path) -> None:
    notes, _ = await noted(file, [Finished("stop")])
    assert notes.first == []


async def test_every_failed_request_is_told_also_one_that_is_repeated(file: Path) -> None:
    notes, _ = await noted(file, [BUSY], [BUSY], ["Hi ", Finished("stop")])
    assert notes.failures == {"upstream_unavailable": 2}
    assert [outcome for outcome, _ in notes.ends] == ["completed"]


async def test_answer_that_is_cut_here_is_no_failure_of_the_upstream(file: Path) -> None:
    notes, _ = await noted(file, ["too long", Finished("stop")], policy=Policy(answer_limit=3))
    assert notes.failures == {}
    assert [outcome for outcome, _ in notes.ends] == ["failed"]


async def test_run_that_another_process_ends_is_not_told(file: Path) -> None:
    notes = Notes()
    model = ScriptedModel(["Hi ", asyncio.Event()])
    async with opened(file) as store:
        engine = Engine(store, model, Policy(), Timing(window=0), meter=notes)
        async with engine.running():
            await engine.start(message())
            await model.asked(0)
    assert model.requests[0].closed.is_set()
    assert notes.ends == []
