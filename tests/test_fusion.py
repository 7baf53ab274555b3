from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from chat.documents import Passage
from chat.fusion import K, fused


def listed(*names: str) -> Sequence[Passage]:
    return [Passage(name, "Title", 1, "paragraph 1", name, 100.0 - place) for place, name in enumerate(names)]


def test_what_both_lists_have_comes_before_what_one_has() -> None:
    found = fused([listed("a", "b", "c"), listed("d", "c", "e")], 10)
    assert [passage.document for passage in found] == ["c", "a", "d", "b", "e"]
    assert found[0].score == 1 / (K + 3) + 1 / (K + 2)
    assert found[1].score == 1 / (K + 1)
    assert (found[0].title, found[0].text) == ("Title", "c")


def test_of_equals_the_first_lists_comes_first_and_no_more_than_asked_for() -> None:
    assert [passage.document for passage in fused([listed("a", "b"), listed("c", "d")], 3)] == ["a", "c", "b"]


def test_places_of_a_document_are_told_apart() -> None:
    twice = [Passage("a", "", number, "", str(number), 1) for number in (1, 2)]
    assert [passage.number for passage in fused([twice, twice[1:]], 9)] == [2, 1]


def test_one_list_keeps_its_order_and_none_is_none() -> None:
    assert [passage.document for passage in fused([listed("b", "a"), []], 9)] == ["b", "a"]
    assert fused([[], []], 9) == []


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=3), st.integers(0, 9))
def test_fused_list_has_what_there_was_once_and_best_first(names: list[list[str]], limit: int) -> None:
    found = fused([listed(*some) for some in names], limit)
    scores = [passage.score for passage in found]
    assert scores == sorted(scores, reverse=True)
    everything = {name for some in names for name in some}
    assert len({passage.document for passage in found}) == len(found) == min(limit, len(everything))
