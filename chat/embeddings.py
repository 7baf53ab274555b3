"""Embeddings of chunks: who makes them, which are wanted, and who keeps and compares them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chat.documents import Passage
from chat.vectors import Vector


class Embedder(Protocol):
    """A model that says what a text is about. ``name`` is what its vectors are kept under: another one, other vectors.

    Those of one name have the same number of dimensions.
    """

    @property
    def name(self) -> str: ...

    async def embed(self, texts: Sequence[str], seconds: float) -> Sequence[Vector]:
        """A vector for each, within so many seconds.

        Raises:
            ModelError: ``final`` where the texts are at fault.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Unembedded:
    """A chunk without an embedding. ``title`` is its document's; see :class:`chat.documents.Chunk` for the rest."""

    document: str
    number: int
    title: str
    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Nearness:
    """A search for the passages whose vectors of ``model`` are next to ``vector``.

    They are looked for in the same documents as :class:`chat.documents.Lookup` says.
    """

    vector: Vector
    model: str
    collection: str
    user_id: str | None
    limit: int


class Embeddings(Protocol):
    """The vectors of the documents' chunks. Every method raises as those of :class:`chat.ports.Store`, which has them.

    There is one model at a time: where a process wants another than the others, whoever came last has its way.
    """

    async def want_embeddings(self, model: str) -> None:
        """From now on this model's are made and compared. If another's were, all chunks are without one again."""
        ...

    async def unembedded(self, model: str, texts: int, chars: int, seconds: float) -> Sequence[Unembedded]:
        """So many chunks without an embedding, with so much text or one chunk more, for this process alone.

        They are nobody else's for so many seconds. None if there is nothing to do, or another model is wanted.
        """
        ...

    async def embed(self, model: str, chunks: Sequence[tuple[Unembedded, Vector]]) -> None:
        """Keep these, as far as their documents are still there and the model is wanted."""
        ...

    async def put_off(self, chunks: Sequence[Unembedded], seconds: float | None) -> None:
        """Try these again in so many seconds; with None never, until another model is wanted."""
        ...

    async def nearest(self, wanted: Nearness) -> Sequence[Passage]:
        """The nearest first, their scores the cosines. None while another model is wanted."""
        ...
