"""Finds the passages of documents that a question is about, for whoever asks: an answer, or a tool in it."""

from collections.abc import Sequence

from chat.documents import Documents, Lookup, Passage, words_of_question


class Retrieval:
    """Looks in what its user may read, and nowhere else."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def passages(self, question: str, collection: str, user_id: str | None, limit: int) -> Sequence[Passage]:
        """Those that fit the question best first, at most ``limit``; none where nothing does.

        They are of documents of the collection that are the user's or shared; of those that are shared alone where
        there is no user.
        """
        return await self._documents.passages(Lookup(words_of_question(question), collection, user_id, limit))
