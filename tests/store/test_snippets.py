"""What a snippet costs: a message may be nothing but matches, and whoever searches may have written it."""

from collections.abc import Iterator
from typing import Any, SupportsIndex, overload

import pytest

from store.snippets import MOST_MATCHES, _best, _matches, snippet, words_in


class Counted(list[tuple[int, int, int]]):
    """Counts what is looked at."""

    looks = 0

    @overload
    def __getitem__(self, place: SupportsIndex, /) -> tuple[int, int, int]: ...
    @overload
    def __getitem__(self, place: slice, /) -> list[tuple[int, int, int]]: ...
    def __getitem__(self, place: Any, /) -> Any:
        found = super().__getitem__(place)
        self.looks += len(found) if isinstance(place, slice) else 1
        return found

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        for item in super().__iter__():
            self.looks += 1
            yield item


def test_best_place_is_found_in_linear_time() -> None:
    looks = []
    for size in (500, 2_000):
        matches = Counted((place, place + 1, place % 3) for place in range(size))
        assert _best(matches) == 0
        looks.append(matches.looks)
    assert looks[1] < 6 * looks[0]


@pytest.mark.parametrize("terms", [[["a"]], [["a"] * 250], [["a"]] * 32])
def test_message_of_nothing_but_matches_has_so_many_of_each_term(terms: list[list[str]]) -> None:
    words = list(words_in("a " * 20_000))
    assert len(list(_matches(words, terms, beginning=False))) <= MOST_MATCHES * len(terms)
    text, marks = snippet("a " * 20_000, terms, beginning=True)
    assert len(text) < 400
    assert bool(marks) is (len(terms[0]) == 1)  # what is longer than a snippet has none
