"""Which words of a question are looked for in a large collection: a search costs as much as it has chunks to rank.

Words that most chunks have tell nothing apart, and are what costs. So the rare ones say which chunks are ranked; only
where there are none, chunks are looked for that have the common ones. In a small collection all words count.
"""

from collections.abc import Mapping, Sequence

COMMON_CHUNKS = 1_000
"""Chunks that are ranked where all words are common. Of such there are more than any question means."""

COMMON_WORDS = 3
"""Of a question that has no rare word, so many are looked for, the longest: words are the rarer the longer they are."""


def rarest(counts: Mapping[str, int], most: int) -> tuple[Sequence[str], Sequence[str]]:
    """The rarest words, so many that ``most`` chunks have one of them at most; and the others.

    ``counts`` says how many chunks have each. What none has is not among them.
    """
    words = sorted((word for word, count in counts.items() if count), key=lambda word: (counts[word], -len(word)))
    total = 0
    for place, word in enumerate(words):
        total += counts[word]
        if total > most:
            return words[:place], words[place:]
    return words, []


def longest(words: Sequence[str]) -> Sequence[str]:
    """What is looked for where no word is rare."""
    return sorted(words, key=len, reverse=True)[:COMMON_WORDS]
