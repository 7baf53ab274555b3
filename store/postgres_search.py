"""Search with PostgreSQL's text search vectors. Every function works inside a transaction that it is given.

The words are taken apart here: PostgreSQL's own parsers know hosts, hyphens and signs, and fold no accents. Behind the
16,383rd word of a message a vector keeps no order: there, what somebody typed with punctuation inside is not found.
"""

import asyncio
import hashlib
from collections.abc import Sequence

from chat.search import Hit, Search
from chat.sessions import Page
from store import search as searching
from store.rows import Rows
from store.search import INDEX_CHARS, INDEX_MESSAGES, RANKED, may_be_a_beginning, next_ones
from store.snippets import snippet, terms_of, words_in

VECTOR_BYTES = 900_000
"""What counts of all words together: a vector takes 2 kB of each, and 1 MB in all."""

WORD_PLACES = 256
"""How often a vector counts one word."""


async def behind(db: Rows) -> bool:
    """Whether there are messages that the index does not have."""
    return bool(await db.rows("SELECT 1 FROM unsearched LIMIT 1"))


async def index(db: Rows) -> bool:
    """Add some messages to the index; False when there are no more."""
    await db.lock("index")
    waiting = await db.rows(
        "SELECT pos, length(content) FROM unsearched JOIN messages USING (pos) ORDER BY pos LIMIT ?", (INDEX_MESSAGES,)
    )
    taken = next_ones(waiting, INDEX_CHARS)
    if not taken:
        return False
    found = await db.rows(
        """SELECT messages.pos, user_id, content FROM messages JOIN sessions ON sessions.id = session_id
           WHERE messages.pos BETWEEN ? AND ? FOR KEY SHARE OF messages""",
        (taken[0], taken[-1]),
    )
    wanted = set(taken)
    vectors = await asyncio.to_thread(
        lambda: [(pos, vector(word_of(user_id), content)) for pos, user_id, content in found if pos in wanted]
    )
    await db.each(
        "INSERT INTO message_words VALUES (?, CAST(CAST(? AS TEXT) AS tsvector)) ON CONFLICT DO NOTHING", vectors
    )
    await db.each("DELETE FROM unsearched WHERE pos = ?", [(pos,) for pos in taken])
    return len(taken) == INDEX_MESSAGES or len(taken) < len(waiting)


def vector(whose: str, content: str) -> str:
    """The text as PostgreSQL writes vectors, with ``whose``, a :func:`word_of` it. No word has a quote in it."""
    places: dict[str, list[int]] = {}
    room = VECTOR_BYTES
    for place, word in enumerate(words_in(content), 1):
        known = places.setdefault(word.text, [])
        if len(known) < WORD_PLACES:
            room -= 2 if known else 2 + len(word.text.encode())
            known.append(place)
        if room < 0:
            break
    return " ".join([whose, *(f"'{word}':{','.join(map(str, known))}" for word, known in places.items())])


def word_of(name: str) -> str:
    """A word that nobody can say, as PostgreSQL writes it."""
    return f"'@{hashlib.sha256(name.encode()).hexdigest()}'"


async def search(db: Rows, wanted: Search) -> Page[Hit]:
    return await searching.search(db, wanted, _ranked, _hits)


def _query(wanted: Search) -> str:
    """The search as PostgreSQL writes it."""
    phrases = [" <-> ".join(f"'{part}'" for part in parts) for parts in terms_of(wanted) if parts]
    if phrases and may_be_a_beginning(wanted.words[-1]):
        phrases[-1] += ":*"
    return " & ".join(f"({phrase})" for phrase in phrases)


async def _ranked(db: Rows, wanted: Search, newest: int) -> list[int]:
    query = _query(wanted)
    if not query:
        return []
    whose = "" if wanted.user_id is None else f"{word_of(wanted.user_id)} & "
    where = "" if wanted.session_id is None else "AND session_id = :session_id"
    # 16: divided by the logarithm of how many different words there are. What is about nothing else is better.
    found = await db.rows(
        f"""SELECT pos FROM (
                SELECT pos, words FROM message_words JOIN messages USING (pos)
                WHERE words @@ CAST(CAST(:which AS TEXT) AS tsquery) AND pos <= :newest {where}
                ORDER BY pos DESC LIMIT :ranked) AS found
            ORDER BY ts_rank(words, CAST(CAST(:query AS TEXT) AS tsquery), 16) DESC, pos DESC""",  # noqa: S608  # nosec B608  # no value
        {
            "which": f"{whose}{query}",
            "query": query,
            "newest": newest,
            "session_id": wanted.session_id,
            "ranked": RANKED,
        },
    )
    return [pos for (pos,) in found]


async def _hits(db: Rows, wanted: Search, page: Sequence[int]) -> list[Hit]:
    found = await db.rows(
        f"""SELECT pos, session_id, id, role, created_at, content FROM messages
            WHERE pos IN ({", ".join(map(str, page))})"""  # noqa: S608  # nosec B608  # numbers of ours
    )
    terms = terms_of(wanted)
    beginning = may_be_a_beginning(wanted.words[-1])

    def show() -> dict[int, Hit]:
        return {
            pos: Hit(session_id, message_id, role, *snippet(content, terms, beginning=beginning), created_at)
            for pos, session_id, message_id, role, created_at, content in found
        }

    hits = await asyncio.to_thread(show)
    return [hits[pos] for pos in page]
