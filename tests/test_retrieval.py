"""Passages by words and by meaning, and what becomes of a search when there is no embedding to be had."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat.documents import CHUNK_CHARS, Chunk, Document, NewDocument
from chat.embedding import Embedding
from chat.errors import ModelError, StoreUnavailableError
from chat.fusion import K
from chat.ids import new_id
from chat.retrieval import Retrieval
from store.sqlite import SqliteStore
from tests.embedding import WordCounter
from tests.store.files import opened_store

DOWN = ModelError("upstream_unavailable", "", retryable=True, transient=True)
REFUSED = ModelError("upstream_rejected", "", retryable=False, final=True)


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    async with opened_store(file) as store:
        yield store


async def add(store: SqliteStore, *texts: str, user_id: str | None = None) -> Document:
    chunks = [Chunk(f"paragraph {number}", text) for number, text in enumerate(texts, 1)]
    new = NewDocument(new_id("doc"), user_id, "handbook", "Guide", "text/plain", 1, chunks)
    return await store.add_document(new, 0)


async def found(retrieval: Retrieval, question: str, limit: int = 10, user_id: str | None = None) -> list[str]:
    return [passage.text for passage in await retrieval.passages(question, "handbook", user_id, limit)]


async def test_what_is_said_in_other_words_is_found_by_meaning(store: SqliteStore) -> None:
    await add(store, "the shop opens at nine", "a puppy in the rain", "beverage for free")
    embedder = WordCounter()
    await Embedding(store, embedder).turn()
    assert await found(Retrieval(store), "Is tea free?") == ["beverage for free"]
    assert await found(Retrieval(store), "Any dog?") == []
    assert (await found(Retrieval(store, embedder), "Any dog?"))[0] == "a puppy in the rain"
    assert (await found(Retrieval(store, embedder), "Is tea free?"))[0] == "beverage for free"


async def test_passages_that_share_only_words_that_all_have_are_left_out(store: SqliteStore) -> None:
    await add(store, "tea is free", "the shop is closed", "it is late", "what is it", "rain")
    assert await found(Retrieval(store), "Is tea free?") == ["tea is free"]
    assert set(await found(Retrieval(store), "Is it?")) >= {"it is late", "what is it"}
    assert len(await found(Retrieval(store), "is")) == 4  # where nothing says more, that has to do


async def test_both_lists_make_one_and_its_scores_say_so(store: SqliteStore) -> None:
    await add(store, "tea", "beverage", "dog")
    embedder = WordCounter()
    await Embedding(store, embedder).turn()
    first, second = await Retrieval(store, embedder).passages("tea", "handbook", None, 2)
    assert (first.text, first.score) == ("tea", 2 / (K + 1))
    assert (second.text, second.score) == ("beverage", 1 / (K + 2))


async def test_a_question_is_embedded_once_and_no_longer_than_a_chunk(store: SqliteStore) -> None:
    embedder = WordCounter()
    await Retrieval(store, embedder).passages(f"  tea {'x' * 5_000}", "handbook", None, 5)
    [[asked]] = embedder.asked
    assert asked.startswith("tea xx")
    assert len(asked) == CHUNK_CHARS - 2
    assert await found(Retrieval(store, embedder), " \n ") == []
    assert len(embedder.asked) == 1


@pytest.mark.parametrize("error", [DOWN, REFUSED])
async def test_words_alone_are_searched_where_the_endpoint_fails(
    store: SqliteStore, error: ModelError, caplog: pytest.LogCaptureFixture
) -> None:
    await add(store, "tea one", "tea two", "beverage")
    embedder = WordCounter()
    await Embedding(store, embedder).turn()
    embedder.faults = [error]
    retrieval = Retrieval(store, embedder)
    assert await found(retrieval, "tea", limit=1) == ["tea one"]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"a question has no embedding: {error.code}")
    ]
    assert "beverage" in await found(retrieval, "tea")


async def test_endpoint_that_is_down_is_not_waited_for_again_and_again(store: SqliteStore) -> None:
    await add(store, "tea")
    embedder = WordCounter()
    embedder.faults = [DOWN] * 9
    retrieval = Retrieval(store, embedder)
    for _ in range(9):
        assert await found(retrieval, "tea") == ["tea"]
    assert len(embedder.asked) == 5


async def test_a_store_that_is_gone_is_said_to_be_gone(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise StoreUnavailableError

    monkeypatch.setattr(store, "passages", refuse)
    with pytest.raises(StoreUnavailableError):
        await Retrieval(store, WordCounter()).passages("tea", "handbook", None, 5)


async def test_meaning_shows_nobody_what_is_anothers(store: SqliteStore) -> None:
    await add(store, "tea for bob", user_id="bob")
    await add(store, "dog for ann", user_id="ann")
    embedder = WordCounter()
    await Embedding(store, embedder).turn()
    for user_id in ("ann", None):
        assert "tea for bob" not in await found(Retrieval(store, embedder), "beverage", user_id=user_id)
