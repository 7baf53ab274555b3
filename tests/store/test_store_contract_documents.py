"""What every store does: keep documents, and find the passages that fit a question."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.commands import Claim, NewRetry, OnBusy
from chat.documents import Chunk, Document, Lookup, NewDocument, Passage, words_of_question
from chat.errors import ChatError
from chat.ids import new_id
from chat.sessions import NewSession
from store.search import INDEX_CHARS, INDEX_MESSAGES
from store.sql import SqlStore
from tests.scripted import message
from tests.strategies import texts


def document(
    *chunks: str, user_id: str | None = None, collection: str = "handbook", title: str = "Untitled"
) -> NewDocument:
    parts = [Chunk(f"paragraph {number}", text) for number, text in enumerate(chunks, 1)]
    return NewDocument(new_id("doc"), user_id, collection, title, "text/plain", sum(map(len, chunks)), parts)


async def add(store: SqlStore, *chunks: str, **members: str | None) -> Document:
    return await store.add_document(document(*chunks, **members), 0)  # type: ignore[arg-type]


async def find(
    store: SqlStore, question: str, *, collection: str = "handbook", user_id: str | None = None, limit: int = 100
) -> Sequence[Passage]:
    return await store.passages(Lookup(words_of_question(question), collection, user_id, limit))


def texts_of(passages: Sequence[Passage]) -> list[str]:
    return [passage.text for passage in passages]


async def test_document_is_kept_and_found_with_its_place(store: SqlStore, other: SqlStore) -> None:
    new = document("Opening hours", "The shop in Zürich opens at nine.", user_id="ann", title="Handbook")
    stored = await store.add_document(new, 0)
    assert stored == await other.document(new.id)
    assert (stored.id, stored.user_id, stored.collection, stored.title) == (new.id, "ann", "handbook", "Handbook")
    assert (stored.media_type, stored.bytes, stored.chunks) == ("text/plain", new.bytes, 2)
    [passage] = await find(other, "When does ZURICH open?", user_id="ann")
    assert replace(passage, score=0) == Passage(
        new.id, "Handbook", 2, "paragraph 2", "The shop in Zürich opens at nine.", 0
    )
    assert passage.score > 0


async def test_unknown_document_is_not_there(store: SqlStore) -> None:
    assert await store.document("doc_unknown") is None
    assert not await store.delete_document("doc_unknown")


async def test_deleted_document_is_gone_with_its_passages(store: SqlStore, other: SqlStore) -> None:
    gone, kept = await add(store, "tea at four", "tea at five"), await add(store, "tea at six")
    assert await other.delete_document(gone.id)
    assert not await store.delete_document(gone.id)
    assert await store.document(gone.id) is None
    assert texts_of(await find(store, "tea")) == ["tea at six"]
    assert await other.delete_document(kept.id)
    assert await find(store, "tea four five six") == []
    await add(store, "coffee at six")
    assert texts_of(await find(store, "tea coffee")) == ["coffee at six"]


async def test_a_user_finds_what_is_its_own_or_shared_and_of_the_collection(store: SqlStore) -> None:
    await add(store, "tea for ann", user_id="ann")
    await add(store, "tea for bob", user_id="bob")
    await add(store, "tea for all")
    await add(store, "tea elsewhere", user_id="ann", collection="Handbook")
    assert sorted(texts_of(await find(store, "tea", user_id="ann"))) == ["tea for all", "tea for ann"]
    assert sorted(texts_of(await find(store, "tea", user_id="bob"))) == ["tea for all", "tea for bob"]
    for stranger in ("Ann", "an", "ann ", "carl", None):
        assert texts_of(await find(store, "tea", user_id=stranger)) == ["tea for all"]
    assert texts_of(await find(store, "tea", user_id="ann", collection="Handbook")) == ["tea elsewhere"]
    assert await find(store, "tea", user_id="ann", collection="nothing") == []


async def test_users_and_collections_are_told_apart_by_their_whole_names(store: SqlStore) -> None:
    await add(store, "tea", user_id="a", collection="bc")
    await add(store, "tea", user_id="bc", collection="a")
    for user_id, collection in (("c", "b"), ("abc", ""), ("c", "ab"), (None, "bc"), ("", "bc"), ("b", "a")):
        assert await find(store, "tea", user_id=user_id, collection=collection) == []
    assert len(await find(store, "tea", user_id="a", collection="bc")) == 1


async def test_what_is_rare_counts_more_than_what_is_everywhere(store: SqlStore) -> None:
    await add(store, *[f"the {word} is the one with the lid, and is in the hall" for word in ("box", "jar", "tin")])
    await add(store, "A kettle stands beside a jar.")
    found = texts_of(await find(store, "where is the kettle?"))
    assert found[0] == "A kettle stands beside a jar."
    assert len(found) == 4
    scores = [passage.score for passage in await find(store, "where is the kettle?")]
    assert scores == sorted(scores, reverse=True)


async def test_title_and_heading_are_found_too(store: SqlStore) -> None:
    new = replace(document("At nine.", title="Opening hours"), chunks=[Chunk("Winter > Sundays", "At nine.")])
    await store.add_document(new, 0)
    await add(store, "Something else")
    assert texts_of(await find(store, "sundays")) == ["At nine."]
    assert texts_of(await find(store, "opening")) == ["At nine."]


async def test_no_more_is_found_than_asked_for_and_nothing_without_words(store: SqlStore) -> None:
    await add(store, *[f"tea {number}" for number in range(9)])
    assert len(await find(store, "tea", limit=4)) == 4
    assert await find(store, "?!") == []


async def test_equals_come_in_the_order_of_their_documents(store: SqlStore) -> None:
    await add(store, "tea a", "tea b")
    await add(store, "tea c")
    assert texts_of(await find(store, "tea")) == ["tea a", "tea b", "tea c"]


async def test_list_has_what_the_user_may_read_latest_first(store: SqlStore) -> None:
    names = [("ann", "x"), (None, "x"), ("bob", "x"), ("ann", "y"), (None, "y")]
    made = [await add(store, "tea", user_id=user_id, collection=collection) for user_id, collection in names]
    assert list((await store.documents(None, None, 10, None)).items) == made[::-1]
    assert list((await store.documents("ann", None, 10, None)).items) == [made[4], made[3], made[1], made[0]]
    assert list((await store.documents("ann", "x", 10, None)).items) == [made[1], made[0]]
    assert list((await store.documents("nobody", "y", 10, None)).items) == [made[4]]


async def test_pages_of_the_list_lead_to_its_end(store: SqlStore) -> None:
    made = [await add(store, "tea") for _ in range(5)]
    listed, after, pages = list[Document](), None, 0
    while pages == 0 or after is not None:
        page = await store.documents(None, None, 2, after)
        listed += page.items
        after, pages = page.next, pages + 1
    assert (listed, pages) == (made[::-1], 3)
    with pytest.raises(ChatError, match="invalid_request"):
        await store.documents(None, None, 2, "x")


async def test_a_user_may_have_so_many_documents_and_others_as_many(store: SqlStore) -> None:
    for user_id in ("ann", None, "bob"):
        first = await store.add_document(document("tea", user_id=user_id), 2)
        await store.add_document(document("tea", user_id=user_id), 2)
        with pytest.raises(ChatError, match="too_many_documents"):
            await store.add_document(document("milk", user_id=user_id), 2)
        assert await find(store, "milk", user_id=user_id) == []
        await store.delete_document(first.id)
        await store.add_document(document("tea", user_id=user_id), 2)


async def test_long_document_is_indexed_in_parts(store: SqlStore) -> None:
    parts = 2 * INDEX_MESSAGES + 7
    await add(store, *[f"part{number} {'tea ' * (INDEX_CHARS // 800)}" for number in range(parts)], "last")
    assert len(await find(store, "tea", limit=parts + 1)) == parts
    assert {passage.number for passage in await find(store, f"part{parts - 1} last")} == {parts, parts + 1}


async def test_what_an_upkeep_has_not_come_to_is_found_all_the_same(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> None:
        pass

    with monkeypatch.context() as patched:
        patched.setattr(store, "_index_chunks", nothing)
        gone, kept = await add(store, "tea for two"), await add(store, "tea for three")
    assert await store.delete_document(gone.id)  # which the index never had
    assert texts_of(await find(store, "tea")) == ["tea for three"]
    await store.sweep(0)
    assert await store.delete_document(kept.id)
    assert await find(store, "tea") == []


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=60) | texts)
async def test_any_text_can_be_asked_and_finds_itself(store: SqlStore, text: str) -> None:
    user_id = new_id("user")
    await add(store, text.replace("\0", " "), user_id=user_id)
    found = await find(store, text, user_id=user_id)
    if text.isascii() and words_of_question(text):  # the rest is as new as the store's tables of Unicode are
        assert len(found) == 1


WORDS = ("tea", "milk", "Jam", "zürich")

added_or_deleted = st.lists(
    st.tuples(
        st.sampled_from(("ann", "bob", None)),
        st.none() | st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), min_size=1, max_size=3),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(added_or_deleted, st.lists(st.sampled_from(WORDS), min_size=1, max_size=2))
async def test_search_finds_exactly_what_is_there(
    store: SqlStore, steps: list[tuple[str | None, list[list[str]] | None]], words: list[str]
) -> None:
    collection = new_id("c")
    there: dict[str | None, list[tuple[str, list[list[str]]]]] = {"ann": [], "bob": [], None: []}
    for user_id, chunks in steps:
        if chunks is not None:
            made = await add(store, *map(" ".join, chunks), user_id=user_id, collection=collection)
            there[user_id].append((made.id, chunks))
        elif there[user_id]:
            assert await store.delete_document(there[user_id].pop(0)[0])
    for user_id in there:
        readable = [*there[None], *(there[user_id] if user_id else [])]
        expected = {
            (made, number)
            for made, chunks in readable
            for number, chunk in enumerate(chunks, 1)
            if set(chunk) & set(words)
        }
        found = await find(store, " ".join(words), user_id=user_id, collection=collection)
        assert {(passage.document, passage.number) for passage in found} == expected
        assert len(found) == len(expected)


async def test_a_run_knows_the_collection_of_its_session(store: SqlStore) -> None:
    async def asked(collection: str | None, on_busy: OnBusy = OnBusy.QUEUE) -> str | None:
        new = message(session=NewSession("ses_1", "ann", collection=collection), on_busy=on_busy)
        run = (await store.start_run(new)).run
        session = await store.session("ses_1")
        terms = await store.terms(run.id)
        assert session is not None
        assert session.collection == terms.collection
        retried = (await store.retry_run(NewRetry(new_id("run"), run.id, "echo", on_busy=on_busy))).run
        assert await store.terms(retried.id) == terms
        return terms.collection

    named = [await asked(collection) for collection in (None, "handbook", None, "other", None)]
    assert named == [None, "handbook", "handbook", "other", "other"]
    with pytest.raises(ChatError, match="run_in_progress"):
        await asked("refused", OnBusy.REJECT)
    changed = await store.update_session("ses_1", {"collection": None})
    assert changed is not None
    assert (changed.collection, await asked(None)) == (None, None)


async def test_documents_are_told_and_deleted_with_their_user(store: SqlStore) -> None:
    own = [await add(store, "tea for ann", "more", user_id="ann") for _ in range(2)]
    shared, other = await add(store, "tea for all"), await add(store, "tea for bob", user_id="bob")
    assert await store.knows_user("ann")
    lines = b"".join([line async for page in store.export_user("ann", "1.2.3") for line in page]).decode()
    assert all(document.id in lines for document in own)
    assert (lines.count('{"chunk":'), lines.count("tea for ann")) == (4, 2)
    assert "tea for all" not in lines
    assert "tea for bob" not in lines
    while await store.forget_user("ann"):
        pass
    assert not await store.knows_user("ann")
    assert list((await store.documents(None, None, 10, None)).items) == [other, shared]
    assert texts_of(await find(store, "tea", user_id="ann")) == ["tea for all"]


async def test_claim_leads_to_its_document_until_it_is_forgotten(store: SqlStore, other: SqlStore) -> None:
    claim = Claim("key", "print")
    assert await store.claimed_document(claim) is None
    first = await store.add_document(document("tea"), 0, claim)
    assert await other.add_document(document("tea"), 0, claim) == first
    assert await other.claimed_document(claim) == first
    for ask in (store.claimed_document(Claim("key", "else")), store.add_document(document("x"), 0, Claim("key", "y"))):
        with pytest.raises(ChatError, match="idempotency_conflict"):
            await ask
    assert len((await store.documents(None, None, 10, None)).items) == 1
    await store.sweep(3600)
    assert await store.claimed_document(claim) == first
    await store.sweep(-1)
    assert await store.claimed_document(claim) is None
    assert (await store.add_document(document("tea"), 0, claim)).id != first.id
