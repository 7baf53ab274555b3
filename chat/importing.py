"""The run of an import: its files become documents, one after the other."""

import asyncio
import logging
from collections.abc import Awaitable, Collection

from chat.documents import NewDocument
from chat.errors import ChatError
from chat.events import (
    ImportDocument,
    ImportEvent,
    ImportRefused,
    ImportStarted,
    RunFailed,
    Seam,
    Terminal,
    completed,
)
from chat.imports import ImportFile, ImportStore, Refusal
from chat.intake import File, Intake
from chat.journal import Journal
from chat.live import LiveRun
from chat.patience import patiently
from chat.runs import Run

TAKEOVERS = 3
"""How often an import changes its owner without a file being done in between. What is in the way would stay there."""

_UNKNOWN = RunFailed("internal", "Nothing is imported here.", retryable=True)

logger = logging.getLogger(__name__)


class Importing:
    """Works imports off: what :class:`chat.generation.Generation` is for answers.

    What has become of each file is stored with its document, and said in the run's log then: whoever goes on where
    another process died says what that could not say any more, and begins with the first file that is not done.
    """

    def __init__(self, store: ImportStore, journal: Journal, intake: Intake | None) -> None:
        self._store = store
        self._journal = journal
        self._intake = intake

    def resume(self, live: LiveRun, _theirs: Collection[str] = ()) -> bool:
        """Make an import that was taken over ready to go on; False if it has to be interrupted instead."""
        seams = 0
        for event in reversed(live.events):
            if not isinstance(event, Seam):
                break
            seams += 1
        if seams >= TAKEOVERS:
            return False
        if live.events:
            self._journal.append(live, Seam(live.run.epoch))
        return True

    async def generate(self, live: LiveRun) -> Terminal:
        """The run's terminal event, when all files are done.

        Raises:
            ChatError: the run's log, or its files, cannot be read or written any more.
        """
        if self._intake is None:
            return _UNKNOWN
        files = await patiently(lambda: self._store.import_files(live.run.id), live.run.id)
        said = sum([isinstance(event, ImportDocument | ImportRefused) for event in live.events])
        if not live.events:
            self._journal.append(live, ImportStarted(len(files), sum([file.bytes for file in files])))
        for file in files[said:]:
            if file.done:
                self._say(live, file, len(files))
                continue
            outcome = await self._outcome(live.run, file, self._intake)
            await _to_its_end(self._finish(live, file, outcome, len(files), self._intake.most))
            await self._journal.room()
        return completed("", "stop")

    async def recover_usage(self, live: LiveRun) -> None:
        """No model is asked."""

    async def _outcome(self, run: Run, file: ImportFile, intake: Intake) -> NewDocument | Refusal:
        data = await patiently(lambda: self._store.import_content(run.id, file.number), run.id)
        try:
            taken = File(file.name, file.title, file.media_type, data)
            return await intake.document(taken, file.collection, file.user_id)
        except ChatError as error:
            return Refusal(error.code, error.message)

    async def _finish(
        self, live: LiveRun, file: ImportFile, outcome: NewDocument | Refusal, of: int, most: int
    ) -> None:
        done = await self._stored(live.run, file.number, outcome, most)
        self._say(live, done, of)

    async def _stored(self, run: Run, number: int, outcome: NewDocument | Refusal, most: int) -> ImportFile:
        if isinstance(outcome, NewDocument):
            new = outcome
            try:
                return await patiently(lambda: self._store.import_document(run, number, new, most), run.id)
            except ChatError as error:
                if error.code != "too_many_documents":
                    raise
                outcome = Refusal(error.code, error.message)
        refusal = outcome
        return await patiently(lambda: self._store.import_refused(run, number, refusal), run.id)

    def _say(self, live: LiveRun, file: ImportFile, of: int) -> None:
        self._journal.append(live, _said(file, of))


def _said(file: ImportFile, of: int) -> ImportEvent:
    if file.refusal is not None:
        return ImportRefused(file.name, file.refusal.code, file.refusal.message, file.number, of)
    assert file.document is not None
    return ImportDocument(file.name, file.document, file.chunks, file.number, of)


async def _to_its_end(work: Awaitable[None]) -> None:
    """Await it, even when this task is cancelled meanwhile: what is stored is to be said before the run ends here."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is not None:
            logger.warning("a file was not done: %s", task.exception())
        raise
