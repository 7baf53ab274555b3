"""Leaving, stopping and finishing at one and the same moment: whatever comes first, a run ends once."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from chat.commands import OnBusy
from chat.commits import Batch
from chat.engine import Engine, Timing
from chat.errors import ChatError, ModelError
from chat.events import Event, RunCancelled, Terminal, TextDelta, answer_text, completed
from chat.policy import Policy
from chat.ports import ModelRequest, Part
from chat.runs import STATUS_OF, Run
from store.sqlite import SqliteStore
from tests.patience import PATIENCE, soon
from tests.scripted import STOP, ScriptedModel, engine_on, everything, follow, message, uncounted
from tests.store.sites import read_along

SEEDS = 1_000
AT_ONCE = 50
"""Races in one engine at the same time: their commits meet, as they do in a busy process."""


FAILURE = ModelError("upstream_incomplete", "It broke off.", retryable=True)


@pytest.fixture(autouse=True)
def _unswept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is read whole at the end."""

    async def sweep(_store: SqliteStore, _retention: float) -> None:
        pass

    monkeypatch.setattr(SqliteStore, "sweep", sweep)


class RacingModel(ScriptedModel):
    """Says ``before`` and then, when the gate for the message opens, the rest or a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Part], None]:
        said = request.messages[-1].content
        draw = random.Random(said)
        if not request.prefix:
            for word in range(draw.randrange(3)):
                yield [TextDelta(f"{word} ")]
        await self.gates[said].wait()
        if draw.random() < 0.3:
            raise FAILURE
        yield [TextDelta("and "), TextDelta("the end"), STOP]


async def race(engine: Engine, model: RacingModel, seed: int) -> Run:
    """One run, and all that can happen to it in an order that the seed draws; the run when it has ended."""
    draw = random.Random(seed)
    said = f"seed {seed}"
    started = await engine.start(message(said, f"ses_{seed}"))
    run_id = started.run.id
    followers = [asyncio.create_task(everything(engine, run_id)) for _ in range(2)]

    async def leave() -> None:
        followers[0].cancel()

    async def interrupt() -> None:
        model.gates[f"{said}, or not"].set()
        with suppress(ChatError):
            await engine.start(message(f"{said}, or not", f"ses_{seed}", on_busy=OnBusy.INTERRUPT))

    acts = [opened(model.gates[said]), leave()]
    acts += [interrupt() if draw.random() < 0.3 else stop(engine, run_id) for _ in range(draw.randrange(1, 4))]
    draw.shuffle(acts)
    await at_once(draw, *acts)
    run = await soon(engine.result(run_id))
    check(await soon(followers[1]), run)
    check(await everything(engine, run_id), run)
    await asyncio.gather(followers[0], return_exceptions=True)
    answer = (await engine.answer(run)).content
    assert answer == answer_text(await everything(engine, run_id))
    return run


def check(log: Sequence[Event], run: Run) -> None:
    """Exactly one terminal event: the last one, and the one that the run says."""
    assert [event for event in log if isinstance(event, Terminal)] == [log[-1]]
    assert run.terminal is not None
    assert log[-1] == uncounted(run.terminal)
    assert len(log) == run.last_seq
    assert STATUS_OF[type(run.terminal)] is run.status
    if run.status == "completed":
        assert log[-1] == completed(answer_text(log), "stop", None)


async def journal(engine: Engine) -> dict[str, list[tuple[int, Event]]]:
    """Everything that was ever committed, run by run."""
    logs: dict[str, list[tuple[int, Event]]] = defaultdict(list)
    position = 0
    while (tail := await read_along(engine.store, position)).entries:
        assert tail.complete
        position = tail.pos
        for run_id, seq, event in tail.entries:
            logs[run_id].append((seq, event))
    return logs


async def test_leaving_stopping_and_finishing_at_once_end_a_run_once(tmp_path: Path) -> None:
    model = RacingModel()
    async with engine_on(tmp_path / "chat.db", model) as engine:
        await race(engine, model, SEEDS)
        tasks = len(asyncio.all_tasks())
        outcomes: Counter[str] = Counter()
        for first in range(0, SEEDS, AT_ONCE):
            runs = await asyncio.gather(*[race(engine, model, seed) for seed in range(first, first + AT_ONCE)])
            outcomes.update(run.status for run in runs)
        async with asyncio.timeout(PATIENCE):
            while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110  # those of the messages that interrupted
                await asyncio.sleep(0.01)
        for log in (await journal(engine)).values():
            assert [seq for seq, _ in log] == list(range(1, len(log) + 1))
            assert [isinstance(event, Terminal) for _, event in log] == [False] * (len(log) - 1) + [True]
        assert outcomes.total() == SEEDS
        assert {"completed", "failed", "cancelled"} <= outcomes.keys()  # all do happen


async def test_stopping_and_finishing_while_a_process_ends_and_another_begins_end_a_run_once(tmp_path: Path) -> None:
    epochs = {(await succession(tmp_path / "chat.db", seed)).epoch for seed in range(100)}
    assert 2 in epochs  # of how many the machine decides, but some had to be taken up again


async def test_a_stop_while_a_new_owner_still_reads_the_log_keeps_what_was_shown(tmp_path: Path) -> None:
    model = ScriptedModel(["What was shown ", asyncio.Event()])
    async with engine_on(tmp_path / "chat.db", model) as engine:
        run_id = (await engine.start(message())).run.id
        following = follow(engine, run_id, 0)
        shown = (await soon(anext(following))).events
        await following.aclose()
    store = HeldStore(tmp_path / "chat.db")
    await store.open()
    engine = Engine(store, model, Policy(), Timing())
    async with aclosing(store), engine.running():
        await soon(store.asked.wait())
        stopping = asyncio.create_task(engine.cancel(run_id, "requested"))
        await asyncio.sleep(0)
        store.gate.set()
        run = await soon(stopping)
        assert await everything(engine, run_id) == [*shown, RunCancelled("requested")]
        assert (await engine.answer(run)).content == "What was shown "


class HeldStore(SqliteStore):
    """Reads no log before its gate is open; ``asked`` is set when somebody wants to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def events(self, run_id: str, after: int, limit: int) -> Batch:
        self.asked.set()
        await self.gate.wait()
        return await super().events(run_id, after, limit)

    async def aclose(self) -> None:
        await self.close()


async def succession(file: Path, seed: int) -> Run:
    """A run whose process ends while it is stopped and finishes, and what the next process makes of it."""
    draw, model, said = random.Random(seed), RacingModel(), f"seed {seed}"
    async with engine_on(file, model) as engine:
        run_id = (await engine.start(message(said, f"ses_{seed}"))).run.id
        follower = asyncio.create_task(everything(engine, run_id))
        acts = {"drain": engine.drain(0)}
        if draw.random() < 0.3:
            acts["cancel"] = stop(engine, run_id)
        if draw.random() < 0.3:
            acts["finish"] = opened(model.gates[said])
        await at_once(draw, *draw.sample(list(acts.values()), k=len(acts)))
        shown = await soon(follower)
    async with engine_on(file, model) as engine:
        acts = {"finish": opened(model.gates[said])}
        if draw.random() < 0.5:
            acts["cancel"] = stop(engine, run_id)
        await at_once(draw, *draw.sample(list(acts.values()), k=len(acts)))
        run = await soon(engine.result(run_id))
        log = await everything(engine, run_id)
        check(log, run)
        assert log[: len(shown)] == shown
        assert [seq for seq, _ in (await journal(engine))[run_id]] == list(range(1, run.last_seq + 1))
        return run


async def at_once(draw: random.Random, *acts: Coroutine[object, object, None]) -> None:
    """Begin the acts in this order, a few steps of the loop apart, and see them through."""
    acting = []
    for act in acts:
        for _ in range(draw.choice((0, 0, 0, 1, 2, 5, 20))):
            await asyncio.sleep(0)  # hands the loop on: no time passes, others take a step
        acting.append(asyncio.create_task(act))
    await soon(asyncio.gather(*acting))


async def stop(engine: Engine, run_id: str) -> None:
    await engine.cancel(run_id, "requested")


async def opened(gate: asyncio.Event) -> None:
    gate.set()
