"""Gives every chunk its embedding, beside everything else and a batch at a time."""

import logging
import random
from collections.abc import Sequence
from contextlib import suppress

from chat.embeddings import Embedder, Embeddings, Unembedded
from chat.errors import ModelError, StoreCorruptError, StoreUnavailableError

BATCH_TEXTS = 64
"""Texts of one request. Some servers take no more than this, and all answer it within seconds."""

BATCH_CHARS = 65_536
"""Of all of them, and one text more: some 16,000 tokens."""

REQUEST_SECONDS = 30.0
"""The longest that a request may take."""

CLAIM_SECONDS = 120.0
"""How long a batch is this process's alone: longer than its requests, and what a process that dies holds it up."""

POLL = 1.0
"""Seconds between two looks for new chunks."""

LONGEST_PAUSE = 60.0
"""Seconds between two tries while the endpoint fails; the first pause is :data:`POLL`, each is twice the last one."""

PROBE = "Hello"
"""What no endpoint that embeds anything refuses."""

logger = logging.getLogger(__name__)


class Embedding:
    """What :class:`chat.upkeep.Upkeep` repeats, with ``pause`` seconds between two turns.

    What is stored is not asked for again, whatever becomes of this process; what it had in hand when it died is, when
    it is nobody's any more.
    """

    def __init__(self, store: Embeddings, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder
        self._wanted = False
        self._failures = 0
        self.pause = POLL

    async def turn(self) -> None:
        """One batch, if there is any."""
        if not self._wanted:
            await self._store.want_embeddings(self._embedder.name)
            self._wanted = True
        chunks = await self._store.unembedded(self._embedder.name, BATCH_TEXTS, BATCH_CHARS, CLAIM_SECONDS)
        self.pause = 0.0 if chunks else POLL
        if chunks:
            await self._try(chunks)

    async def _try(self, chunks: Sequence[Unembedded]) -> None:
        try:
            await self._embed(chunks)
        except ModelError as error:
            self.pause = self._patience(error)
            await self._store.put_off(chunks, self.pause)  # those of them that have none yet
        except BaseException:
            # The process stops, or the store is out of reach: for the next one. What the store has to say must not take
            # the cancellation's place, of which nobody would hear then.
            with suppress(StoreUnavailableError, StoreCorruptError):
                await self._store.put_off(chunks, 0.0)
            raise
        else:
            if self._failures:
                logger.info("%s embeds again", self._embedder.name)
            self._failures = 0

    async def _embed(self, chunks: Sequence[Unembedded]) -> None:
        """Embed them. Where one is refused the others are not: they are asked for in halves until it is alone."""
        try:
            vectors = await self._embedder.embed([text_of(chunk) for chunk in chunks], REQUEST_SECONDS)
        except ModelError as error:
            if not error.final:
                raise
            if len(chunks) == 1:
                await self._refused(chunks[0])
                return
        else:
            await self._store.embed(self._embedder.name, list(zip(chunks, vectors, strict=True)))
            return
        half = len(chunks) // 2
        await self._embed(chunks[:half])
        await self._embed(chunks[half:])

    async def _refused(self, chunk: Unembedded) -> None:
        """Leave it to the search by words, unless it is the endpoint that refuses everything: then ModelError."""
        await self._embedder.embed([PROBE], REQUEST_SECONDS)
        logger.warning("%s refuses a chunk: %s, %d", self._embedder.name, chunk.document, chunk.number)
        await self._store.put_off([chunk], None)

    def _patience(self, error: ModelError) -> float:
        """Seconds until the next try."""
        if not self._failures:
            logger.warning("%s does not embed: %s; documents are found by words", self._embedder.name, error.code)
        pause = min(POLL * 2.0**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, 10)
        # Not all replicas at the same moment.
        return max(error.retry_after or 0.0, pause * random.uniform(0.75, 1.0))  # noqa: S311  # nosec B311


def text_of(chunk: Unembedded) -> str:
    """What is embedded: a passage means little without what it is under."""
    return f"{chunk.title}\n{chunk.place}\n\n{chunk.text}"
