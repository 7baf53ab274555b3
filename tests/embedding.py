"""An embedding model for tests: it counts words that it knows, and says what a test wants when the test wants it."""

import asyncio
import base64
import json
from array import array
from collections.abc import Sequence

from chat.vectors import Vector
from tests.listener import Listener
from tests.patience import PATIENCE

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


class EmbeddingServer(Listener):
    """The same over HTTP. ``status`` is what it answers with; ``texts`` are those that it was asked for, one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.texts: list[str] = []
        self.arrived = asyncio.Condition()

    async def until(self, texts: int) -> None:
        """Return when it has been asked for so many."""
        async with asyncio.timeout(PATIENCE), self.arrived:
            await self.arrived.wait_for(lambda: len(self.texts) >= texts)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.partition("content-length:")[2].partition("\r\n")[0])
                asked = json.loads(await reader.readexactly(size))["input"]
                async with self.arrived:
                    self.texts += asked
                    self.arrived.notify_all()
                vectors = [base64.b64encode(about(text)).decode() for text in asked]
                data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
                body = json.dumps({"data": data}).encode()
                writer.write(b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\n" % self.status)
                writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
