"""What every store does: find what was said."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.events import TextDelta, completed
from chat.ids import new_id
from chat.ports import Store
from chat.search import Hit, Search, is_searchable, words_of
from chat.sessions import NewSession, Turn
from tests.scripted import message
from tests.store.sites import said
from tests.strategies import texts


async def say(store: Store, *contents: str, session_id: str = "ses_1", user_id: str = "ann") -> None:
    """Messages of a user, the last of them with an empty answer."""
    turns = [Turn("user", content) for content in contents]
    run = (await store.start_run(message(session=NewSession(session_id, user_id), turns=turns))).run
    await store.commit([said(run, completed("", "stop", None))])


async def find(store: Store, text: str, **wanted: str | None) -> list[Hit]:
    """Everything that is found, turning the pages; no page is longer than it may be, and none but the last shorter."""
    hits: list[Hit] = []
    after: str | None = None
    while True:
        page = await store.search(Search(words_of(text), **wanted, limit=3, after=after))
        hits += page.items
        if page.next is None:
            assert len(page.items) <= 3
            return hits
        assert len(page.items) == 3
        after = page.next


def snippets(hits: Sequence[Hit]) -> list[str]:
    return [hit.snippet for hit in hits]


def marked(hit: Hit) -> list[str]:
    return [hit.snippet[start:end] for start, end in hit.matches]


async def test_message_is_found_with_its_place(store: Store, other: Store) -> None:
    run = (await store.start_run(message("Where is Zürich?"))).run
    await store.commit([said(run, TextDelta("In Switzerland"), completed("In Switzerland", "stop", None))])
    [hit] = await find(other, "zurich")
    assert (hit.session_id, hit.message_id, hit.role) == ("ses_1", run.message_id, "user")
    assert (hit.snippet, hit.matches) == ("Where is Zürich?", [(9, 15)])
    assert hit.created_at == (await store.messages("ses_1", 1, run.answer_id)).items[0].created_at
    [hit] = await find(store, "SWITZERLAND")
    assert (hit.message_id, hit.role, marked(hit)) == (run.answer_id, "assistant", ["Switzerland"])


async def test_message_has_all_words_in_any_order_and_the_last_may_be_begun(store: Store) -> None:
    await say(store, "red apples and green pears", "red pears", "apple pie")
    assert snippets(await find(store, "pears red")) == ["red pears", "red apples and green pears"]
    assert snippets(await find(store, "red appl")) == ["red apples and green pears"]
    assert len(await find(store, "appl")) == 2
    assert await find(store, "appl red") == []
    assert await find(store, "re") == []  # too short for a beginning
    assert len(await find(store, "red")) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("chat.db", ["chat", "db"]),
        ("can't", ["can", "t"]),
        ('"chat', ["chat"]),
        ("NOT chat", []),
        ("chat OR nothing", []),
        ("content:chat", []),
        ("(chat)", ["chat"]),
        ("chat*", ["chat"]),
        ("- chat ^", ["chat"]),
        ("東京", ["東京タワー"]),
        ("東", ["東京タワー"]),
        ("٣", ["٣"]),
        ("\0chat\0", ["chat"]),
    ],
)
async def test_what_a_person_types_is_no_query_language(store: Store, text: str, found: list[str]) -> None:
    await say(store, "I can't open chat.db at 東京タワー (٣)")
    hits = await find(store, text)
    assert bool(hits) == bool(found)
    assert [word for hit in hits for part in marked(hit) for word in words_in(part)] == found


def words_in(part: str) -> list[str]:
    return part.replace(".", " ").replace("'", " ").split()


async def test_better_matches_come_first_and_later_ones_among_equals(store: Store) -> None:
    await say(store, "tea with very much milk and a little sugar", "tea", "tea", "tea tea tea")
    hits = await find(store, "tea")
    assert snippets(hits) == ["tea tea tea", "tea", "tea", "tea with very much milk and a little sugar"]
    stored = [message.id for message in (await store.messages("ses_1", 10, None)).items if message.content == "tea"]
    assert [hit.message_id for hit in hits[1:3]] == stored[::-1]


async def test_search_stays_within_the_user_and_the_session(store: Store) -> None:
    await say(store, "tea for ann", session_id="ses_1")
    await say(store, "more tea for ann", session_id="ses_2")
    await say(store, "tea for bob", session_id="ses_3", user_id="bob")
    await say(store, "tea for Ann", session_id="ses_4", user_id="Ann")
    assert len(await find(store, "tea")) == 4
    assert {hit.session_id for hit in await find(store, "tea", user_id="ann")} == {"ses_1", "ses_2"}
    assert snippets(await find(store, "tea", session_id="ses_2")) == ["more tea for ann"]
    assert snippets(await find(store, "tea", session_id="ses_2", user_id="ann")) == ["more tea for ann"]
    assert await find(store, "tea", session_id="ses_2", user_id="bob") == []
    assert await find(store, "tea", session_id="ses_unknown") == []
    assert await find(store, "tea", user_id="nobody") == []
    assert await find(store, "u616e6e") == []  # nobody said that


@pytest.mark.parametrize("user_id", ["a@example.org", "auth0|5f7", "A.b-c_d:e+f", "anonymous-3f2b"])
async def test_users_are_told_apart_by_their_whole_id(store: Store, user_id: str) -> None:
    await say(store, "tea", user_id=user_id)
    assert len(await find(store, "tea", user_id=user_id)) == 1
    for another in (user_id[:-1], user_id + "x", user_id.swapcase(), user_id.replace("-", "."), user_id[2:]):
        assert another == user_id or await find(store, "tea", user_id=another) == []


async def test_what_comes_while_pages_are_turned_is_not_on_them(store: Store) -> None:
    await say(store, *[f"tea {number}" for number in range(7)])
    first = await store.search(Search(["tea"], limit=4))
    await say(store, "tea", "tea tea", session_id="ses_2")
    second = await store.search(Search(["tea"], limit=4, after=first.next))
    found = [hit.snippet for hit in [*first.items, *second.items]]
    assert sorted(found) == [f"tea {number}" for number in range(7)]
    assert second.next is None


async def test_pages_go_on_when_what_was_on_them_is_deleted(store: Store) -> None:
    for number in range(6):
        await say(store, "tea", session_id=f"ses_{number}")
    first = await store.search(Search(["tea"], limit=2))
    await store.delete_session(first.items[0].session_id)
    second = await store.search(Search(["tea"], limit=2, after=first.next))
    assert [hit.session_id for hit in second.items] == ["ses_3", "ses_2"]
    await store.delete_session("ses_2")
    third = await store.search(Search(["tea"], limit=2, after=second.next))
    assert third.next is None
    assert len(third.items) <= 2


@pytest.mark.parametrize("after", ["", "x", "1-2", "1-2-3-4", "-1-2-3", "٣-٣-٣", f"{'9' * 19}-1-1", "1-1-1 OR 1"])
async def test_cursor_of_no_search_is_refused(store: Store, after: str) -> None:
    with pytest.raises(ChatError) as caught:
        await store.search(Search(["tea"], after=after))
    assert caught.value.code == "invalid_request"


async def test_snippet_is_short_and_shows_the_match(store: Store) -> None:
    await say(store, "word " * 500 + "needle" + " word" * 500, "x" * 5_000 + " needle " + "-" * 100_000, "needle" * 900)
    hits = await find(store, "needle")
    assert len(hits) == 3
    for hit in hits:
        assert len(hit.snippet) <= 400
        assert [part[:6] for part in marked(hit)] == ["needle"]
        assert "…" in hit.snippet


async def test_deleted_session_is_not_found(store: Store) -> None:
    await say(store, "tea")
    await say(store, "tea", session_id="ses_2")
    await store.delete_session("ses_1")
    assert [hit.session_id for hit in await find(store, "tea")] == ["ses_2"]
    await store.delete_session("ses_2")
    assert await find(store, "tea") == []


@settings(max_examples=100)
@given(st.text(min_size=1, max_size=60) | texts)
async def test_any_text_can_be_searched_for_and_finds_itself(store: Store, text: str) -> None:
    if not any(map(is_searchable, text)):
        with pytest.raises(ChatError, match="there is no word in it"):
            words_of(text)
        return
    words = words_of(text)
    session_id = new_id("ses")
    await say(store, text, session_id=session_id)
    page = await store.search(Search(words, session_id=session_id))
    for hit in page.items:
        assert all(0 <= start < end <= len(hit.snippet) for start, end in hit.matches)
    if text.isascii() and "\0" not in text:  # the rest is as new as the store's tables of Unicode are
        [hit] = page.items
        assert hit.matches


WORDS = ("ab", "abc", "abcd", "x", "Abc")

said_or_deleted = st.lists(
    st.tuples(st.integers(0, 2), st.none() | st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)), max_size=10
)


@settings(max_examples=40)
@given(said_or_deleted, st.lists(st.sampled_from(WORDS), min_size=1, max_size=2))
async def test_search_finds_exactly_what_is_there(
    store: Store, steps: list[tuple[int, list[str] | None]], words: list[str]
) -> None:
    user_id = new_id("user")
    sessions = [new_id("ses") for _ in range(3)]
    there: dict[str, list[list[str]]] = {session_id: [] for session_id in sessions}
    for number, content in steps:
        session_id = sessions[number]
        if content is None:
            await store.delete_session(session_id)
            there[session_id] = []
        else:
            await say(store, " ".join(content), session_id=session_id, user_id=user_id)
            there[session_id].append([word.lower() for word in content])
    *whole, last = (word.lower() for word in words)
    expected = {
        session_id: sum(
            set(whole) <= set(content) and any(w == last or (len(last) > 2 and w.startswith(last)) for w in content)
            for content in contents
        )
        for session_id, contents in there.items()
    }
    for session_id in sessions:
        assert len(await find(store, " ".join(words), session_id=session_id)) == expected[session_id]
    assert len(await find(store, " ".join(words), user_id=user_id)) == sum(expected.values())
