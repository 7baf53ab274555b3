"""How many at a time: what a process has open, counted by whose it is."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Places:
    """``most``: for each name; 0 for any number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[Hashable, int] = {}

    def __len__(self) -> int:
        """Of all names together."""
        return sum(self._taken.values())

    def full(self, name: Hashable) -> bool:
        return 0 < self._most <= self._taken.get(name, 0)

    def count(self, name: Hashable) -> int:
        return self._taken.get(name, 0)

    def take(self, name: Hashable) -> None:
        self._taken[name] = self._taken.get(name, 0) + 1

    def leave(self, name: Hashable) -> None:
        left = self._taken[name] - 1
        if left:
            self._taken[name] = left
        else:
            del self._taken[name]


@contextmanager
def held(*wanted: tuple[Places, Hashable]) -> Iterator[None]:
    """Take these, by their names, and leave them again. Whether they are full is not asked."""
    for places, name in wanted:
        places.take(name)
    try:
        yield
    finally:
        for places, name in wanted:
            places.leave(name)
