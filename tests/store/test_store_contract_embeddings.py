"""What every store does: keep vectors of chunks, say which have none, and find those that are next to one."""

from collections.abc import Sequence
from typing import Any

import pytest

from chat.documents import Chunk, Document, NewDocument, Passage
from chat.embeddings import Nearness, Unembedded
from chat.ids import new_id
from store import nearest
from store.sql import SqlStore
from tests.embedding import about, toward

MODEL = "counter"


async def add(
    store: SqlStore, *texts: str, user_id: str | None = None, collection: str = "handbook", title: str = "Guide"
) -> Document:
    chunks = [Chunk(f"paragraph {number}", text) for number, text in enumerate(texts, 1)]
    new = NewDocument(new_id("doc"), user_id, collection, title, "text/plain", 1, chunks)
    return await store.add_document(new, 0)


async def claim(
    store: SqlStore, model: str = MODEL, texts: int = 100, chars: int = 10_000, seconds: float = 60
) -> Sequence[Unembedded]:
    return await store.unembedded(model, texts, chars, seconds)


async def embed_all(store: SqlStore, model: str = MODEL) -> int:
    """All that waits; how many that were."""
    await store.want_embeddings(model)
    done = 0
    while chunks := await claim(store, model):
        await store.embed(model, [(chunk, about(chunk.text)) for chunk in chunks])
        done += len(chunks)
    return done


async def near(
    store: SqlStore,
    question: str,
    *,
    model: str = MODEL,
    collection: str = "handbook",
    user_id: str | None = None,
    limit: int = 10,
) -> Sequence[Passage]:
    return await store.nearest(Nearness(about(question), model, collection, user_id, limit))


def texts_of(passages: Sequence[Passage]) -> list[str]:
    return [passage.text for passage in passages]


async def count(store: SqlStore, table: str) -> int:
    [(number,)] = await store._database.read(lambda db: db.rows(f"SELECT count(*) FROM {table}"))
    return int(number)


async def test_nearest_passage_is_found_with_its_place_and_cosine(store: SqlStore, other: SqlStore) -> None:
    document = await add(store, "tea", "The shop opens at nine.", user_id="ann", title="Handbook")
    assert document.embedded == 0
    assert await embed_all(other) == 2
    stored = await store.document(document.id)
    assert stored is not None
    assert stored.embedded == 2
    first, second = await near(store, "store opens nine", user_id="ann")
    assert (first.document, first.title, first.number, first.place) == (document.id, "Handbook", 2, "paragraph 2")
    assert (first.text, second.text) == ("The shop opens at nine.", "tea")
    assert [first.score, second.score] == pytest.approx([1.0, 0.0])


async def test_nearest_are_those_that_a_user_may_read_and_of_the_collection(store: SqlStore) -> None:
    await add(store, "tea for ann", user_id="ann")
    await add(store, "tea for bob", user_id="bob")
    await add(store, "tea for all")
    await add(store, "tea elsewhere", user_id="ann", collection="Handbook")
    await embed_all(store)
    for _ in range(2):  # from the database, and from memory
        assert sorted(texts_of(await near(store, "tea", user_id="ann"))) == ["tea for all", "tea for ann"]
        assert sorted(texts_of(await near(store, "tea", user_id="bob"))) == ["tea for all", "tea for bob"]
        for stranger in ("Ann", "an", "carl", None):
            assert texts_of(await near(store, "tea", user_id=stranger)) == ["tea for all"]
        assert texts_of(await near(store, "tea", user_id="ann", collection="Handbook")) == ["tea elsewhere"]
        assert await near(store, "tea", user_id="ann", collection="nothing") == []


async def test_nothing_that_may_not_be_read_is_gone_through(store: SqlStore) -> None:
    await add(store, "tea for ann", user_id="ann")
    await add(store, "tea for bob", user_id="bob")
    await add(store, "tea elsewhere", collection="other")
    await embed_all(store)
    await near(store, "tea", user_id="ann")
    assert store._shelves is not None
    assert list(store._shelves._shelves) == [("handbook", "ann")]


async def test_what_may_not_be_read_takes_nobodys_place(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "CANDIDATES", 2)
    for _ in range(4):
        await add(store, "tea", "tea", "tea", user_id="bob")
        await add(store, "tea", "tea", collection="other")
    await add(store, "dog", "tea and dog", "rain", user_id="ann")
    await embed_all(store)
    assert texts_of(await near(store, "tea", user_id="ann", limit=1)) == ["tea and dog"]


async def test_no_more_is_found_than_asked_for(store: SqlStore) -> None:
    await add(store, *["tea"] * 9)
    await embed_all(store)
    found = await near(store, "tea", limit=4)
    assert [passage.number for passage in found] == [1, 2, 3, 4]


async def test_the_few_with_the_most_signs_in_common_are_compared(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "CANDIDATES", 3)
    await add(store, "tea", "tea dog", "tea dog car", "dog", "car rain book", user_id="ann")
    await add(store, "rain", "book", "shop", "nine", "tea dog car rain")
    await embed_all(store)
    assert texts_of(await near(store, "tea", user_id="ann", limit=2)) == ["tea", "tea dog"]


async def test_chunks_wait_until_they_are_embedded_and_are_one_process_own_meanwhile(
    store: SqlStore, other: SqlStore
) -> None:
    await add(store, "tea one", "tea two", "tea three", title="Title")
    assert await claim(store) == []  # nobody has wanted any
    await store.want_embeddings(MODEL)
    mine, theirs = await claim(store, texts=2), await claim(other)
    assert [chunk.text for chunk in mine] == ["tea one", "tea two"]
    assert [(chunk.title, chunk.place, chunk.number, chunk.text) for chunk in theirs] == [
        ("Title", "paragraph 3", 3, "tea three")
    ]
    assert await claim(store) == []
    await store.embed(MODEL, [(chunk, about(chunk.text)) for chunk in mine])
    assert sorted(texts_of(await near(other, "tea"))) == ["tea one", "tea two"]
    await other.put_off(theirs, 0)
    assert await claim(store) == theirs


async def test_a_claim_ends_by_itself_and_what_was_done_meanwhile_counts_once(store: SqlStore, other: SqlStore) -> None:
    document = await add(store, "tea")
    await store.want_embeddings(MODEL)
    [chunk] = await claim(store, seconds=0)
    assert await claim(other) == [chunk]
    await store.embed(MODEL, [(chunk, about("tea"))])
    await other.embed(MODEL, [(chunk, about("dog"))])
    [passage] = await near(store, "tea")
    assert passage.score == pytest.approx(1.0)
    stored = await store.document(document.id)
    assert stored is not None
    assert stored.embedded == 1
    assert await claim(other) == []


async def test_a_batch_has_so_much_text_and_one_chunk_more(store: SqlStore) -> None:
    await add(store, "a" * 40, "b" * 40, "c" * 40)
    await store.want_embeddings(MODEL)
    assert len(await claim(store, chars=60)) == 2
    assert len(await claim(store, chars=1)) == 1


async def test_refused_chunk_does_not_come_again_until_another_model_is_wanted(store: SqlStore) -> None:
    await add(store, "tea", "dog")
    await store.want_embeddings(MODEL)
    tea, dog = await claim(store)
    await store.put_off([tea], None)
    await store.put_off([dog], 0)
    assert await claim(store) == [dog]
    await store.want_embeddings("other")
    assert await claim(store, "other") == [tea, dog]


async def test_what_is_put_off_comes_behind_what_is_new(store: SqlStore) -> None:
    await add(store, "tea")
    await store.want_embeddings(MODEL)
    await store.put_off(await claim(store), 0)
    await add(store, "dog")
    assert [chunk.text for chunk in await claim(store, texts=1)] == ["dog"]


async def test_another_model_embeds_all_again_and_is_never_compared_with_the_first(
    store: SqlStore, other: SqlStore
) -> None:
    document = await add(store, "tea", "dog")
    assert await embed_all(store) == 2
    await store.want_embeddings(MODEL)  # as at every start
    assert await claim(store) == []
    assert texts_of(await near(store, "tea", limit=1)) == ["tea"]
    await other.want_embeddings("newer")
    assert await near(store, "tea") == []
    assert await near(store, "tea", model="newer") == []
    assert await claim(store) == []
    [tea, _] = await claim(other, "newer")
    await store.embed(MODEL, [(tea, about("dog"))])  # a batch that the old one had under way
    assert await near(store, "tea", model="newer") == []
    await other.embed("newer", [(tea, toward(0, 0, 1))])
    [passage] = await store.nearest(Nearness(toward(0, 0, 1), "newer", "handbook", None, 9))
    assert (passage.document, passage.text) == (document.id, "tea")
    stored = await store.document(document.id)
    assert stored is not None
    assert stored.embedded == 1


async def test_question_of_other_dimensions_finds_nothing(store: SqlStore) -> None:
    await add(store, "tea")
    await embed_all(store)
    assert await store.nearest(Nearness(toward(1, 0), MODEL, "handbook", None, 9)) == []
    assert await store.nearest(Nearness(toward(*[1] * 900), MODEL, "handbook", None, 9)) == []


async def test_new_and_deleted_documents_are_seen_at_the_next_search(store: SqlStore, other: SqlStore) -> None:
    first = await add(store, "tea one")
    await embed_all(store)
    assert texts_of(await near(store, "tea")) == ["tea one"]
    await add(other, "tea two", "tea three")
    await embed_all(other)
    assert sorted(texts_of(await near(store, "tea"))) == ["tea one", "tea three", "tea two"]
    await other.delete_document(first.id)
    assert sorted(texts_of(await near(store, "tea"))) == ["tea three", "tea two"]
    assert sorted(texts_of(await near(store, "tea"))) == ["tea three", "tea two"]


async def test_deleted_document_takes_its_vectors_along(store: SqlStore) -> None:
    document = await add(store, "tea", "dog")
    await store.want_embeddings(MODEL)
    [tea] = await claim(store, texts=1)
    await store.embed(MODEL, [(tea, about("tea"))])
    assert [await count(store, table) for table in ("embeddings", "embedding_signs", "unembedded_chunks")] == [1, 1, 1]
    await store.delete_document(document.id)
    assert [await count(store, table) for table in ("embeddings", "embedding_signs", "unembedded_chunks")] == [0, 0, 0]
    await store.embed(MODEL, [(tea, about("tea"))])  # it was under way
    assert await count(store, "embeddings") == 0


async def test_a_vector_does_not_come_to_the_chunk_that_has_taken_the_place(store: SqlStore) -> None:
    document = await add(store, "tea")
    await store.want_embeddings(MODEL)
    chunks = await claim(store)
    await store.delete_document(document.id)
    await add(store, "dog")  # SQLite gives it the position of what was deleted
    await store.embed(MODEL, [(chunk, about("tea")) for chunk in chunks])
    await store.put_off(chunks, None)
    assert await near(store, "tea") == []
    assert [chunk.text for chunk in await claim(store)] == ["dog"]


async def test_user_takes_its_vectors_along(store: SqlStore) -> None:
    await add(store, "tea", user_id="ann")
    await embed_all(store)
    while await store.forget_user("ann"):
        pass
    assert await count(store, "embeddings") == 0


async def test_many_documents_are_read_in_parts(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.sql.READ_DOCUMENTS", 2)
    for number in range(5):
        await add(store, f"tea {number}")
    await embed_all(store)
    assert len(await near(store, "tea")) == 5


async def test_what_was_asked_about_for_longest_is_forgotten(store: SqlStore) -> None:
    store._shelves = nearest.Shelves(most=50)  # of one chunk it is 16
    for name in ("a", "b"):
        await add(store, "tea", "dog", collection=name)
    await embed_all(store)
    for name in ("a", "b", "a"):
        assert len(await near(store, "tea", collection=name)) == 2
    assert list(store._shelves._shelves) == [("a", None)]
    await add(store, *["tea"] * 9, collection="large")
    await embed_all(store)
    assert len(await near(store, "tea", collection="large", limit=20)) == 9
    assert store._shelves._shelves == {}


def test_signs_are_a_bit_for_each_number() -> None:
    assert nearest.signs(toward(1, -1, 0, 2, -3, 1, 1, 1, 1)) == bytes([0b10010111, 0b10000000])


async def rows_of(store: SqlStore, sql: str) -> Sequence[Any]:
    return await store._database.read(lambda db: db.rows(sql))


async def test_model_and_dimensions_are_recorded(store: SqlStore) -> None:
    await add(store, "tea")
    await embed_all(store)
    [(model, dimensions, vector)] = await rows_of(store, "SELECT model, dimensions, vector FROM embeddings")
    assert (model, dimensions, bytes(vector)) == (MODEL, 8, about("tea"))
