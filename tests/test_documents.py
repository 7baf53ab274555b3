import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.documents import CHUNK_CHARS, COLLECTION, QUESTION_CHARS, words_of_question
from chat.search import SEARCH_WORDS
from chat.sources import MAX_TEXT


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("When does the shop open? The SHOP!", ["when", "does", "the", "shop", "open"]),
        ("chat.db can't open_it", ["chat", "db", "can", "t", "open", "it"]),
        ("Ope\u0301ra", ["opéra"]),
        ("?! \0 \n", []),
    ],
)
def test_question_is_taken_apart_into_words(question: str, words: list[str]) -> None:
    assert words_of_question(question) == words


def test_of_a_long_question_the_longest_words_are_looked_for() -> None:
    words = [f"{'a' * length}{letter}" for length in range(1, 41) for letter in "xy"]
    assert words_of_question(" ".join(words)) == words[-SEARCH_WORDS:]


def test_what_stands_far_behind_is_not_looked_at() -> None:
    assert words_of_question("tea" + " " * QUESTION_CHARS + "milk") == ["tea"]


@given(st.text())
def test_words_are_few_and_have_nothing_that_a_query_language_knows(text: str) -> None:
    words = words_of_question(text)
    assert len(words) == len(set(words)) <= SEARCH_WORDS
    assert all(word.isalnum() for word in words)


def test_a_source_has_room_for_a_chunk() -> None:
    assert CHUNK_CHARS <= MAX_TEXT


def test_names_of_collections_stand_in_urls() -> None:
    assert COLLECTION.fullmatch("hand-book_2")
    assert not COLLECTION.fullmatch("hand/book")
