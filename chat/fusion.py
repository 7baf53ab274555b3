"""One list out of several: reciprocal rank fusion.

Scores of words and of vectors are not on one scale, and no constant puts them there. Places are. Cormack, Clarke and
Buettcher, Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods, SIGIR 2009.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from chat.documents import Passage

K = 60
"""The paper's own constant: how little the first place counts above the second."""


def fused(lists: Iterable[Sequence[Passage]], limit: int) -> Sequence[Passage]:
    """The best of all the lists, at most ``limit``, each once.

    Its score is the sum of 1 / (60 + place) over the lists that it is in, places counted from 1: with two lists at most
    2 / 61, and 1 / 61 for the first of one list that the other does not have. Of equals, the first list's comes first.
    """
    scores: dict[tuple[str, int], float] = {}
    known: dict[tuple[str, int], Passage] = {}
    for passages in lists:
        for place, passage in enumerate(passages, 1):
            key = passage.document, passage.number
            scores[key] = scores.get(key, 0.0) + 1 / (K + place)
            known.setdefault(key, passage)
    best = sorted(known, key=lambda key: -scores[key])[:limit]
    return [replace(known[key], score=scores[key]) for key in best]
