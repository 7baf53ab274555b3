"""An embedding model for tests: it counts words that it knows, and says what a test wants when the test wants it."""

import asyncio
from array import array
from collections.abc import Sequence

from chat.vectors import Vector

KNOWN = ("tea", "shop", "dog", "opens", "nine", "car", "rain", "book")


def toward(*numbers: float) -> Vector:
    """The vector of length 1 in this direction."""
    length = sum(number * number for number in numbers) ** 0.5
    return array("f", [number / (length or 1) for number in numbers]).tobytes()


def about(text: str) -> Vector:
    """What a text is about: how often it has each of the known words, synonyms included."""
    words = text.lower().replace("?", " ").replace(".", " ").split()
    words = [{"beverage": "tea", "store": "shop", "puppy": "dog"}.get(word, word) for word in words]
    return toward(*[words.count(known) for known in KNOWN])


class WordCounter:
    """:class:`chat.embeddings.Embedder`. ``faults`` are raised one a request, None for one that is answered.

    ``refused``: with one of these words in a text, whole requests are refused by ``refusal``.
    """

    def __init__(self, name: str = "counter", *, refused: Sequence[str] = (), refusal: Exception | None = None) -> None:
        self.name = name
        self.asked: list[Sequence[str]] = []
        self.faults: list[Exception | None] = []
        self.refused = refused
        self.refusal = refusal
        self.arrived = asyncio.Semaphore(0)
        """Released by each request."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False

    async def embed(self, texts: Sequence[str], seconds: float) -> Sequence[Vector]:
        self.asked.append(list(texts))
        self.arrived.release()
        fault = self.faults.pop(0) if self.faults else None
        await self.gate.wait()
        if fault is not None:
            raise fault
        if self.refusal is not None and any(word in text for word in self.refused for text in texts):
            raise self.refusal
        return [about(text) for text in texts]

    async def close(self) -> None:
        self.closed = True
