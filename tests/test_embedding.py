"""How chunks come to their embeddings: in batches, once, and whatever happens meanwhile."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from chat import embedding
from chat.documents import Chunk, Document, NewDocument
from chat.embedding import LONGEST_PAUSE, POLL, PROBE, Embedding
from chat.errors import ModelError, StoreUnavailableError
from chat.ids import new_id
from store.sqlite import SqliteStore
from tests.embedding import WordCounter
from tests.patience import soon
from tests.scripted import ScriptedModel, engine_on
from tests.store.files import opened_store

BUSY = ModelError("upstream_rate_limited", "", retryable=True, transient=True)
REFUSED = ModelError("upstream_rejected", "", retryable=False, final=True)


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    async with opened_store(file) as store:
        yield store


async def add(store: SqliteStore, *texts: str) -> Document:
    chunks = [Chunk(f"paragraph {number}", text) for number, text in enumerate(texts, 1)]
    return await store.add_document(NewDocument(new_id("doc"), None, "handbook", "Guide", "text/plain", 1, chunks), 0)


async def embedded(store: SqliteStore, document: Document) -> int:
    found = await store.document(document.id)
    assert found is not None
    return found.embedded


def texts_of(asked: Sequence[str]) -> list[str]:
    return [text.rpartition("\n")[2] for text in asked]


async def test_a_turn_embeds_a_batch_and_the_next_one_the_rest(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "BATCH_TEXTS", 2)
    document, embedder = await add(store, "tea", "dog", "car"), WordCounter()
    work = Embedding(store, embedder)
    await work.turn()
    assert (await embedded(store, document), work.pause) == (2, 0)
    await work.turn()
    assert (await embedded(store, document), work.pause) == (3, 0)
    await work.turn()
    assert work.pause == POLL
    assert list(map(texts_of, embedder.asked)) == [["tea", "dog"], ["car"]]
    assert embedder.asked[1] == ["Guide\nparagraph 3\n\ncar"]


async def test_what_is_stored_is_not_asked_for_again_by_the_next_process(file: Path) -> None:
    embedder = WordCounter()
    for _ in range(2):
        async with opened_store(file) as store:
            if not embedder.asked:
                await add(store, "tea")
            await Embedding(store, embedder).turn()
    assert len(embedder.asked) == 1


async def test_process_that_stops_gives_its_batch_back(store: SqliteStore) -> None:
    await add(store, "tea")
    embedder, other = WordCounter(), WordCounter()
    embedder.gate.clear()
    turn = asyncio.create_task(Embedding(store, embedder).turn())
    await soon(embedder.arrived.acquire())
    await Embedding(store, other).turn()
    assert other.asked == []
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    await Embedding(store, other).turn()
    assert list(map(texts_of, other.asked)) == [["tea"]]


async def test_process_stops_although_the_store_is_gone(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise StoreUnavailableError

    await add(store, "tea")
    embedder = WordCounter()
    embedder.gate.clear()
    turn = asyncio.create_task(Embedding(store, embedder).turn())
    await soon(embedder.arrived.acquire())
    monkeypatch.setattr(store, "put_off", refuse)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(turn)


async def test_endpoint_that_fails_is_asked_again_later_and_later(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put_off: list[float | None] = []
    put = store.put_off

    async def watched(chunks: Sequence[object], seconds: float | None) -> None:
        put_off.append(seconds)
        await put(chunks, 0)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "put_off", watched)
    document, embedder = await add(store, "tea"), WordCounter()
    work = Embedding(store, embedder)
    pauses = []
    embedder.faults = [BUSY] * 12
    for _ in range(12):
        await work.turn()
        pauses.append(work.pause)
    assert put_off == pauses
    assert all(0.75 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses[:6]))
    assert all(pause <= LONGEST_PAUSE for pause in pauses)
    assert pauses[-1] >= 0.75 * LONGEST_PAUSE
    await work.turn()
    assert (await embedded(store, document), work.pause) == (1, 0)
    assert [record.getMessage() for record in caplog.records if record.name == "chat.embedding"] == [
        "counter does not embed: upstream_rate_limited; documents are found by words",
        "counter embeds again",
    ]


async def test_endpoint_that_says_when_is_asked_then(store: SqliteStore) -> None:
    await add(store, "tea")
    embedder = WordCounter()
    embedder.faults = [ModelError("upstream_rate_limited", "", retryable=True, transient=True, retry_after=300)]
    work = Embedding(store, embedder)
    await work.turn()
    assert work.pause == 300


async def test_what_is_refused_is_left_out_and_holds_nothing_up(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    document = await add(store, "tea", "dog", "poison", "car", "rain")
    embedder = WordCounter(refused=["poison"], refusal=REFUSED)
    work = Embedding(store, embedder)
    await work.turn()
    assert (await embedded(store, document), work.pause) == (4, 0)
    assert list(map(texts_of, embedder.asked)) == [
        ["tea", "dog", "poison", "car", "rain"],
        ["tea", "dog"],
        ["poison", "car", "rain"],
        ["poison"],
        [PROBE],
        ["car", "rain"],
    ]
    asked = len(embedder.asked)
    await work.turn()
    await Embedding(store, embedder).turn()
    assert len(embedder.asked) == asked
    assert f"counter refuses a chunk: {document.id}, 3" in caplog.text


async def test_endpoint_that_refuses_everything_marks_nothing(store: SqliteStore) -> None:
    document = await add(store, "tea", "dog")
    embedder = WordCounter(refused=["tea", "dog", PROBE], refusal=REFUSED)
    work = Embedding(store, embedder)
    await work.turn()
    assert work.pause > 0
    embedder.refusal = None
    await store.put_off(await store.unembedded("counter", 9, 9, 9), 0)
    await store._database.write(lambda db: db.rows("UPDATE unembedded_chunks SET due = 0"), durable=False)
    await work.turn()
    assert await embedded(store, document) == 2


async def test_half_that_was_embedded_before_an_outage_is_kept(store: SqliteStore) -> None:
    document = await add(store, "tea", "poison")
    embedder = WordCounter(refused=["poison"], refusal=REFUSED)
    embedder.faults = [None, None, BUSY]
    await Embedding(store, embedder).turn()
    assert await embedded(store, document) == 1


async def test_store_that_is_gone_is_for_the_loop_to_see(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await add(store, "tea")
    embedder = WordCounter()

    async def refuse(*_: object) -> None:
        raise StoreUnavailableError

    monkeypatch.setattr(store, "embed", refuse)
    work = Embedding(store, embedder)
    with pytest.raises(StoreUnavailableError):
        await work.turn()
    monkeypatch.undo()
    await work.turn()
    assert len(embedder.asked) == 2


async def test_engine_embeds_beside_everything_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "POLL", 0.01)
    embedder = WordCounter()
    async with engine_on(file, ScriptedModel(), embedder=embedder) as engine:
        assert isinstance(engine.store, SqliteStore)
        document = await add(engine.store, "tea")
        await soon(embedder.arrived.acquire())
        await add(engine.store, "dog")
        await soon(embedder.arrived.acquire())  # the turn before is over
        assert await embedded(engine.store, document) == 1


async def test_process_that_drains_begins_no_batch(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "POLL", 0.01)
    monkeypatch.setattr("chat.upkeep.IDLE_POLL", 0.005)
    embedder = WordCounter()
    async with engine_on(file, ScriptedModel(), lease=0.3, embedder=embedder) as engine:
        assert isinstance(engine.store, SqliteStore)
        engine._upkeep.claiming = False
        turns = asyncio.Semaphore(0)
        beat = engine.store.beat

        async def beaten() -> None:
            turns.release()
            await beat()

        monkeypatch.setattr(engine.store, "beat", beaten)
        await add(engine.store, "tea")
        for _ in range(3):  # the loops go on
            await soon(turns.acquire())
        assert embedder.asked == []
        engine._upkeep.claiming = True
        await soon(embedder.arrived.acquire())
