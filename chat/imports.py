"""Imports: files that were taken on to become documents, and what the store knows of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chat.commands import Claim
from chat.documents import NewDocument
from chat.errors import ChatError
from chat.intake import File, Intake
from chat.runs import Run
from chat.sessions import NewSession


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file does not become a document."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class NewImport:
    """Files that are to become documents of a collection, and the run that sees to it; stored together or not at all.

    Those that are refused already are told of in their turn, and their bytes are not stored. ``session`` is the run's
    own: every run has one, and this one holds no conversation. ``user_id`` is whose the documents are; None where
    everybody may read them. ``claim`` and ``trace``: see :class:`chat.commands.NewRun`.
    """

    id: str
    session: NewSession
    user_id: str | None
    collection: str
    files: Sequence[tuple[File, Refusal | None]]
    claim: Claim | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class ImportFile:
    """A file of an import, as far as it has come. ``number`` counts from 1.

    It is ``done`` when it has a document or was refused.
    """

    number: int
    name: str
    title: str
    media_type: str
    bytes: int
    collection: str
    user_id: str | None
    document: str | None = None
    chunks: int = 0
    refusal: Refusal | None = None

    @property
    def done(self) -> bool:
        return self.document is not None or self.refusal is not None


class ImportStore(Protocol):
    """The files of imports that go on; those of one that has ended are gone. Raises as :class:`chat.ports.Store`."""

    async def import_files(self, run_id: str) -> Sequence[ImportFile]: ...

    async def import_content(self, run_id: str, number: int) -> bytes:
        """What is in a file that is not done."""
        ...

    async def import_document(self, run: Run, number: int, new: NewDocument, most: int) -> ImportFile:
        """Store what a file has become, and that it is done, and drop its bytes: survives power loss.

        One that was done already stays as it is. ``most``: as for :meth:`chat.documents.Documents.add_document`.

        Raises:
            ChatError: ``too_many_documents``; ``run_taken``: the run is another process's, or gone.
        """
        ...

    async def import_refused(self, run: Run, number: int, refusal: Refusal) -> ImportFile:
        """The same for a file that has become nothing."""
        ...


def refusal_of(intake: Intake, file: File) -> Refusal | None:
    """What can be said against a file before it is read."""
    try:
        intake.check(file.media_type, len(file.data))
    except ChatError as error:
        return Refusal(error.code, error.message)
    return None
