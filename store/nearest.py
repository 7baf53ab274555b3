"""The vectors next to one, with NumPy.

Two steps: the signs of a vector's numbers, a bit each, are kept in memory and say which chunks may be near: of 100,000
with 1,536 dimensions they are 19 MB, and the vectors 600. Those of the few hundred best are read and compared exactly.
Lin, Yang and others, "Binary passage retriever", https://arxiv.org/abs/2106.00882.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from chat.vectors import Vector

CANDIDATES = 256
"""Chunks that are compared exactly. A collection with no more than these is searched exactly as a whole."""

KEPT_BYTES = 256 * 2**20
"""Of signs in memory: a million chunks of 1,536 dimensions. Collections that were not asked about for longest go."""

Scope: TypeAlias = tuple[str, str | None]
"""A collection, and whose documents of it."""

Kind: TypeAlias = tuple[str, int]
"""A model, and how many bytes the signs of its vectors have."""

Words: TypeAlias = NDArray[np.uint64]


def signs(vector: Vector) -> bytes:
    """A bit for each number, the first in the highest of the first byte: whether it is above 0. Whole bytes."""
    return np.packbits(np.frombuffer(vector, "<f4") > 0).tobytes()


def best(vector: Vector, others: Sequence[tuple[int, Vector]], limit: int) -> Mapping[int, float]:
    """The positions of the nearest, and their cosines."""
    if not others:
        return {}
    matrix = np.frombuffer(b"".join(other for _, other in others), "<f4").reshape(len(others), -1)
    scores = matrix @ np.frombuffer(vector, "<f4")
    order = np.argsort(-scores, kind="stable")[:limit]
    return {others[place][0]: float(scores[place]) for place in order}


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a scope has to be searched. ``words`` has a column for each chunk, of 64 signs a row."""

    kind: Kind = ("", 0)
    places: Mapping[str, tuple[int, slice]] = field(default_factory=dict)
    """Of each document the number of its chunks that could be found, and its columns."""
    positions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    words: Words = field(default_factory=lambda: np.empty((0, 0), np.uint64))

    @property
    def size(self) -> int:
        return self.positions.nbytes + self.words.nbytes

    def missing(self, kind: Kind, documents: Mapping[str, int]) -> list[str]:
        """Of these documents, those that have to be read."""
        if kind != self.kind:
            return list(documents)
        return [name for name, count in documents.items() if self.places.get(name, (0, None))[0] != count]

    def stocked(self, kind: Kind, documents: Mapping[str, int], rows: Sequence[tuple[str, int, bytes]]) -> "Shelf":
        """One with these documents and no others. ``rows``: document, position and signs of all that were missing."""
        fresh = set(self.missing(kind, documents))
        kept = [(name, *self.places[name]) for name in documents if name not in fresh]
        if not fresh and len(kept) == len(self.places):
            return self
        places: dict[str, tuple[int, slice]] = {}
        positions, columns, end = [], [], 0
        for name, count, columns_of in kept:
            positions.append(self.positions[columns_of])
            columns.append(self.words[:, columns_of])
            places[name] = (count, slice(end, end + len(positions[-1])))
            end = places[name][1].stop
        for name, group in groupby((row for row in rows if len(row[2]) == kind[1]), lambda row: row[0]):
            found = list(group)
            positions.append(np.array([pos for _, pos, _ in found], np.int64))
            columns.append(_columns([row[2] for row in found]))
            places[name] = (documents[name], slice(end, end + len(found)))
            end += len(found)
        if not positions:
            return Shelf(kind)
        return Shelf(kind, places, np.concatenate(positions), np.ascontiguousarray(np.concatenate(columns, axis=1)))

    def nearest(self, vector: Vector) -> list[int]:
        """The positions of :data:`CANDIDATES` chunks of which the fewest signs are others."""
        if len(self.positions) <= CANDIDATES:
            return [int(pos) for pos in self.positions]
        wanted = _columns([signs(vector)])[:, 0]
        others = np.zeros(len(self.positions), np.uint16)
        for row, word in zip(self.words, wanted, strict=True):
            others += np.bitwise_count(row ^ word)
        return [int(pos) for pos in self.positions[np.argpartition(others, CANDIDATES)[:CANDIDATES]]]


class Shelves:
    """What is in memory, for some scopes."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._shelves: dict[Scope, Shelf] = {}

    def of(self, scope: Scope) -> Shelf:
        return self._shelves.get(scope, Shelf())

    def put(self, scope: Scope, shelf: Shelf) -> None:
        """Keep it as the one that was used last, as far as there is room."""
        self._shelves.pop(scope, None)
        self._shelves[scope] = shelf
        while sum(kept.size for kept in self._shelves.values()) > self._most:
            del self._shelves[next(iter(self._shelves))]


def _columns(rows: Sequence[bytes]) -> Words:
    """The signs of several vectors of the same dimensions, a column each."""
    width = -(-len(rows[0]) // 8) * 8
    return np.frombuffer(b"".join(row.ljust(width, b"\0") for row in rows), np.uint64).reshape(len(rows), -1).T
