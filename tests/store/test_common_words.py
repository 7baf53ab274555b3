"""What a large collection is searched for: not for words that most of its chunks have, unless there are no others."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from chat.documents import Lookup, words_of_question
from store import postgres_documents, sqlite_documents
from store.rarity import COMMON_WORDS, longest, rarest
from store.sql import SqlStore
from store.sqlite import SqliteStore
from tests.store.files import opened_store
from tests.store.test_store_contract_documents import add, find, texts_of


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five chunks are many."""
    for module in (sqlite_documents, postgres_documents):
        monkeypatch.setattr(module, "RANKED_CHUNKS", 5)


async def shelf(store: SqlStore, *texts: str, user_id: str | None = None) -> None:
    for text in texts:
        await add(store, text, user_id=user_id)


TEA = [f"this is the tea of shelf {number}" for number in range(12)]


async def test_common_words_are_left_out_where_there_is_a_rare_one(store: SqlStore) -> None:
    await shelf(store, *TEA, "a kettle is on the shelf", "a kettle and a jar")
    assert sorted(texts_of(await find(store, "this is the kettle of the shelf"))) == [
        "a kettle and a jar",
        "a kettle is on the shelf",
    ]
    assert texts_of(await find(store, "the kettle or the jar?"))[0] == "a kettle and a jar"
    assert texts_of(await find(store, "what is the tea of shelf 7?")) == [TEA[7]]


async def test_question_of_common_words_alone_finds_what_has_them(store: SqlStore) -> None:
    await shelf(store, *TEA, "the shelf", "the tea", "nothing of that")
    assert set(texts_of(await find(store, "this tea"))) == set(TEA)
    assert set(texts_of(await find(store, "the this of tea is xyzzy"))) <= set(TEA)
    assert await find(store, "xyzzy") == []


async def test_common_words_that_are_never_together_are_found_apart(store: SqlStore) -> None:
    apart = [f"{word} {number}" for number in range(6) for word in ("milk", "bread")]
    await shelf(store, *apart)
    assert set(texts_of(await find(store, "milk and bread"))) == set(apart)


async def test_rare_words_beyond_the_first_ones_rank_what_these_find(store: SqlStore) -> None:
    """All of them together are in more chunks than are ranked."""
    await shelf(store, *[f"jar {number}" for number in range(3)], *[f"lid {number}" for number in range(2)], *TEA)
    await shelf(store, "lid of a jar")
    found = texts_of(await find(store, "jar lid"))
    assert all("lid" in text for text in found)
    assert "lid of a jar" in found
    assert found[0] == "lid of a jar" or not isinstance(store, SqliteStore)  # PostgreSQL does without


async def test_large_collections_are_nobody_elses_either(store: SqlStore) -> None:
    await shelf(store, *TEA, user_id="ann")
    await shelf(store, "the kettle of ann", user_id="ann")
    await shelf(store, *[f"the kettle of bob {number}" for number in range(12)], user_id="bob")
    assert texts_of(await find(store, "the kettle", user_id="ann")) == ["the kettle of ann"]
    assert await find(store, "the kettle") == []
    assert len(await find(store, "the kettle", user_id="bob")) >= 5


async def searches(store: SqliteStore, question: str) -> Sequence[tuple[str, int]]:
    wanted = Lookup(words_of_question(question), "handbook", None, 9)
    return await store._database.read(lambda db: sqlite_documents.searches(db, wanted))


async def test_fts5_is_not_asked_for_common_words(file: Path) -> None:
    async with opened_store(file) as store:
        await shelf(store, *TEA, "a kettle")
        [(expression, _)] = await searches(store, "this is the kettle")
        assert '"kettle"' in expression
        assert not [word for word in ("this", "is", "the") if f'"{word}"' in expression]
        both, either = await searches(store, "this is the tea of shelf")
    assert [expression.count('"') // 2 - 1 for expression, _ in (both, either)] == [COMMON_WORDS] * 2
    assert " AND " in both[0].partition("text heading")[2]
    assert " AND " not in either[0].partition("text heading")[2]


def test_rarest_words_are_those_that_fit() -> None:
    counts = {"a": 4, "kettle": 1, "jar": 2, "lid": 2, "none": 0}
    assert rarest(counts, 9) == (["kettle", "jar", "lid", "a"], [])
    assert rarest(counts, 5) == (["kettle", "jar", "lid"], ["a"])
    assert rarest(counts, 4) == (["kettle", "jar"], ["lid", "a"])
    assert rarest(counts, 0) == ([], ["kettle", "jar", "lid", "a"])
    assert longest(["a", "of", "the", "with", "some"]) == ["with", "some", "the"]
