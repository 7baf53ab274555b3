"""Search over what was said: what is looked for, and what is found."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from chat.errors import ChatError
from chat.sessions import Role

SEARCH_WORDS = 32
"""Words of one search: each is looked up for itself, and nobody remembers more of a message."""


@dataclass(frozen=True, slots=True)
class Search:
    """Messages that have all of ``words``, of which the last may be the beginning of one; case does not count.

    ``words`` come from :func:`words_of`. ``after`` is the ``next`` of the page before.
    """

    words: Sequence[str]
    user_id: str | None = None
    session_id: str | None = None
    limit: int = 20
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that was found. ``matches`` are ``(start, end)`` in ``snippet``, in code points, in order."""

    session_id: str
    message_id: str
    role: Role
    snippet: str
    matches: Sequence[tuple[int, int]]
    created_at: int


def words_of(text: str) -> list[str]:
    """What a person typed, as words; they may have punctuation in them, and then their parts follow one another.

    Raises:
        ChatError: ``invalid_request`` when there are none, or too many.
    """
    words = [word for word in text.replace("\0", " ").split() if any(map(is_searchable, word))]
    if not words:
        raise ChatError("invalid_request", "q: there is no word in it.")
    if len(words) > SEARCH_WORDS:
        raise ChatError("invalid_request", f"q: at most {SEARCH_WORDS} words.")
    return words


def is_searchable(character: str) -> bool:
    """Whether words are made of it: a letter, a number, or a character of private use, as SQLite's unicode61 has it."""
    category = unicodedata.category(character)
    return category[0] in "LN" or category == "Co"
