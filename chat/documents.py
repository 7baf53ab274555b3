"""Documents that answers are taken from, the passages of them that a search finds, and who keeps and reads them."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chat.commands import Claim
from chat.search import SEARCH_WORDS
from chat.sessions import Page

CHUNK_CHARS = 1_600
"""Characters of a chunk at most, some 400 tokens: a few paragraphs on one thing. A source in a run's log has room for
all of it, see :data:`chat.sources.MAX_TEXT`: so what the model was shown is what the log says."""

QUESTION_CHARS = 10_000
"""Of a message, what is looked at for words to search for: who pastes more than that asks at its beginning."""

COLLECTION = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Names of collections: they stand in URLs."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document, in the document's order. ``place`` says for people where in it that is."""

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class NewDocument:
    """``user_id`` is whose it is; None where everybody may read it. ``bytes`` are those that came in.

    ``digest`` is their SHA-256, in hexadecimal digits.
    """

    id: str
    user_id: str | None
    collection: str
    title: str
    media_type: str
    bytes: int
    chunks: Sequence[Chunk]
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the store knows it, see :class:`NewDocument`.

    ``chunks`` is their number, ``embedded`` of how many the embedding is there; ``created_at`` is in milliseconds since
    1970.
    """

    id: str
    user_id: str | None
    collection: str
    title: str
    media_type: str
    bytes: int
    chunks: int
    created_at: int
    embedded: int = 0


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """What tells whether a file is there already; ``digest`` as :class:`NewDocument` has it, None if nobody knows."""

    id: str
    title: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found. ``number`` counts from 1 in its document, whose ``title`` this is.

    ``score`` is the larger the better it fits. Only scores of one search can be compared.
    """

    document: str
    title: str
    number: int
    place: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Lookup:
    """A search for passages that have any of ``words``, which come from :func:`words_of_question`.

    They are looked for in the documents of a collection that are the user's or shared; in those that are shared alone
    where there is no user.
    """

    words: Sequence[str]
    collection: str
    user_id: str | None
    limit: int


class Documents(Protocol):
    """The users' documents. Every method is one transaction, and raises as those of :class:`Store`, which has them."""

    async def add_document(self, new: NewDocument, most: int, claim: Claim | None = None) -> Document:
        """Store it with its chunks: survives power loss. ``most``: documents that its user may have; 0 for any.

        It is found from then on. With a ``claim`` that has been made before it is the document of that time, which has
        another id.

        Raises:
            ChatError: ``too_many_documents``, ``idempotency_conflict``.
        """
        ...

    async def claimed_document(self, claim: Claim) -> Document | None:
        """The document that this key has brought; None if none has yet, or if it is gone.

        Raises:
            ChatError: ``idempotency_conflict``.
        """
        ...

    async def document(self, document_id: str) -> Document | None: ...

    async def documents(
        self, user_id: str | None, collection: str | None, limit: int, after: str | None
    ) -> Page[Document]:
        """Those that this user may read, None for everybody's, the latest first.

        Raises:
            ChatError: ``invalid_request`` for a cursor that this store did not make.
        """
        ...

    async def known_documents(self, user_id: str | None, collection: str) -> Sequence[KnownDocument]:
        """All that belongs to this user in a collection, the earliest first; where None, what is shared."""
        ...

    async def delete_document(self, document_id: str) -> bool:
        """Delete it with its chunks: survives power loss. False if there is none."""
        ...

    async def passages(self, wanted: Lookup) -> Sequence[Passage]:
        """Those that fit best first; none where there is no word to look for."""
        ...


class DocumentReader(Protocol):
    """Takes documents apart, without keeping the loop waiting."""

    @property
    def media_types(self) -> Sequence[str]: ...

    async def chunks(self, data: bytes, media_type: str) -> Sequence[Chunk]:
        """All of the text of a file, in chunks; none where there is nothing but white space.

        ``media_type`` is one of :attr:`media_types`. Text is in UTF-8, or in UTF-16 with a byte order mark.

        Raises:
            ChatError: a code that begins with ``document_``; ``service_full`` where that says nothing of the document.
        """
        ...


def words_of_question(text: str) -> list[str]:
    """What to look for when somebody asks this: each word once, without case, at most :data:`SEARCH_WORDS`.

    Of more than that the longest are taken: words are the rarer the longer they are, and what is rare tells most.
    """
    composed = unicodedata.normalize("NFC", text[:QUESTION_CHARS])  # an accent behind its letter would end the word
    words = list(dict.fromkeys(_WORD.findall(composed.lower())))
    if len(words) <= SEARCH_WORDS:
        return words
    longest = set(sorted(words, key=len, reverse=True)[:SEARCH_WORDS])
    return [word for word in words if word in longest]
