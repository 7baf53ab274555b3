"""Finds the passages of documents that a question is about, for whoever asks: an answer, or a tool in it."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from chat.breaker import CircuitBreaker
from chat.documents import CHUNK_CHARS, Documents, Lookup, Passage, words_of_question
from chat.embeddings import Embedder, Embeddings, Nearness
from chat.errors import ModelError
from chat.fusion import fused
from chat.vectors import Vector

QUESTION_SECONDS = 2.0
"""How long an answer waits for its question's embedding. Without one it is answered from what words find."""

DEPTH = 50
"""Passages that each of two searches finds for one list of both. What is further down in both is not much use."""

LEAST_SHARE = 0.01
"""Of the best passage's score that one has to have. Less have those that share only words with the question that
nearly all have, such as "is": the model would read them in vain, and they would stand among the answer's sources."""

logger = logging.getLogger(__name__)


class Library(Documents, Embeddings, Protocol):
    """What is looked in."""


class Retrieval:
    """Looks in what its user may read, and nowhere else: by words, and by meaning where there is an embedder."""

    def __init__(self, library: Library, embedder: Embedder | None = None) -> None:
        self._library = library
        self._embedder = embedder
        self._breaker = CircuitBreaker(embedder.name if embedder is not None else "")

    async def passages(self, question: str, collection: str, user_id: str | None, limit: int) -> Sequence[Passage]:
        """Those that fit the question best first, at most ``limit``; none where nothing does.

        They are of documents of the collection that are the user's or shared; of those that are shared alone where
        there is no user. With an embedder the scores are those of :func:`chat.fusion.fused`.
        """
        words = words_of_question(question)
        if self._embedder is None:
            return _telling(await self._library.passages(Lookup(words, collection, user_id, limit)))
        depth = max(limit, DEPTH)
        asked = asyncio.create_task(self._vector(self._embedder, question))
        try:
            by_words = _telling(await self._library.passages(Lookup(words, collection, user_id, depth)))
            vector = await asked
        finally:
            asked.cancel()
        if vector is None:
            return by_words[:limit]
        near = await self._library.nearest(Nearness(vector, self._embedder.name, collection, user_id, depth))
        return fused([by_words, near], limit)

    async def _vector(self, embedder: Embedder, question: str) -> Vector | None:
        """What the question is about; None if nobody can tell now."""
        text = question[:CHUNK_CHARS].strip()  # no more than what it is compared with, which the model takes
        if not text:
            return None
        try:
            attempt = self._breaker.admit()
        except ModelError:
            return None
        try:
            [vector] = await embedder.embed([text], QUESTION_SECONDS)
        except ModelError as error:
            if error.transient:
                attempt.failed(error)
            else:
                attempt.succeeded()
            logger.warning("a question has no embedding: %s", error.code)
            return None
        else:
            attempt.succeeded()
            return vector
        finally:
            attempt.given_up()


def _telling(by_words: Sequence[Passage]) -> Sequence[Passage]:
    """Those whose words say something, of a list with the best first."""
    return [passage for passage in by_words if passage.score >= LEAST_SHARE * by_words[0].score]
