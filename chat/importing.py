"""The run of an import: its files become documents, one after the other."""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Sequence
from itertools import takewhile

from chat.documents import NewDocument
from chat.errors import ChatError, StoreUnavailableError
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
from chat.imports import ImportFile, Refusal
from chat.intake import File, Intake
from chat.journal import Journal
from chat.live import LiveRun
from chat.patience import patiently
from chat.ports import Store
from chat.runs import Run

TAKEOVERS = 3
"""How often an import's owner may die without a file being done in between. What is in the way would stay there."""

_BROKEN = Refusal("internal", "Something went wrong with this file; the others are not affected.")
"""Of what nobody foresaw. The log has it whole."""

_UNKNOWN = RunFailed("internal", "Nothing is imported here.", retryable=True)

TRIES = 2
"""Of a file with which something goes wrong that nobody foresaw."""

logger = logging.getLogger(__name__)


class Importing:
    """Works imports off: what :class:`chat.generation.Generation` is for answers.

    What has become of each file is stored with its document, and said in the run's log then: whoever goes on where
    another process died says what that could not say any more, and begins with the first file that is not done.
    """

    def __init__(self, store: Store, journal: Journal, intake: Intake | None) -> None:
        self._store = store
        self._journal = journal
        self._intake = intake

    def resume(self, live: LiveRun, _theirs: Collection[str] = ()) -> bool:
        """Make an import that was taken over ready to go on; False if it has to be interrupted instead."""
        if Seam(live.run.epoch) in live.events:  # who left it said so, or this process did, and goes on
            return True
        seams = len(list(takewhile(lambda event: isinstance(event, Seam), reversed(live.events))))
        if seams >= TAKEOVERS:
            return False
        if live.events:
            self._journal.append(live, Seam(live.run.epoch))
        return True

    async def generate(self, live: LiveRun) -> Terminal:
        """The run's terminal event, when all files are done.

        Raises:
            StoreUnavailableError: not now; it can be called again when :meth:`Journal.recover` has returned.
            ChatError: the run's log, or its files, cannot be read or written any more.
        """
        if self._intake is None:
            return _UNKNOWN
        files = await patiently(lambda: self._store.import_files(live.run.id), live.run.id)
        if not live.events:
            self._begin(live, files)
        for file in _unsaid(live, files):
            if file.done:
                self._say(live, file, len(files))
                continue
            outcome = await self._outcome(live.run, file, self._intake)
            await _to_its_end(self._finish(live, file, outcome, len(files), self._intake.most))
            await self._journal.room()
        return completed("", "stop")

    def leave(self, live: LiveRun) -> None:
        """Say the seam for who takes the run over: so that one knows that nothing was in the way."""
        if live.whole and live.trouble is None and live.events:
            self._journal.append(live, Seam(live.run.epoch + 1))

    async def complete(self, live: LiveRun) -> None:
        """Say of the files that are done what nobody could say any more, before the run ends.

        Raises:
            ChatError: the store cannot be reached now, and the next call tries again; the run was lost.
        """
        if live.pending and isinstance(live.pending[-1], Terminal):
            return  # this is said, and only waits for the store
        await self._journal.recover(live)
        files = await self._store.import_files(live.run.id)
        if unsaid := list(takewhile(lambda file: file.done, _unsaid(live, files))):
            if not live.events:
                self._begin(live, files)
            for file in unsaid:
                self._say(live, file, len(files))

    def _begin(self, live: LiveRun, files: Sequence[ImportFile]) -> None:
        self._journal.append(live, ImportStarted(len(files), sum([file.bytes for file in files])))

    async def _outcome(self, run: Run, file: ImportFile, intake: Intake) -> NewDocument | Refusal:
        data = await patiently(lambda: self._store.import_content(run.id, file.number), run.id)
        taken = File(file.name, file.title, file.media_type, data)
        for _ in range(TRIES):
            try:
                return await intake.document(taken, file.collection, file.user_id)
            except ChatError as error:
                if error.code != "service_full":
                    return Refusal(error.code, error.message)
                _broke(run, file.number)
            except Exception:  # such as that there is no process to be had: it must not take the other files along
                _broke(run, file.number)
        return _BROKEN

    async def _finish(
        self, live: LiveRun, file: ImportFile, outcome: NewDocument | Refusal, of: int, most: int
    ) -> None:
        done = await self._stored(live.run, file.number, outcome, most)
        self._say(live, done, of)

    async def _stored(self, run: Run, number: int, outcome: NewDocument | Refusal, most: int) -> ImportFile:
        if isinstance(outcome, NewDocument):
            stored = await self._added(run, number, outcome, most)
            if isinstance(stored, ImportFile):
                return stored
            outcome = stored
        refusal = outcome
        return await patiently(lambda: self._store.import_refused(run, number, refusal), run.id)

    async def _added(self, run: Run, number: int, new: NewDocument, most: int) -> ImportFile | Refusal:
        for _ in range(TRIES):
            try:
                return await patiently(lambda: self._store.import_document(run, number, new, most), run.id)
            except StoreUnavailableError:
                await self._store.beat()  # fails as well, unless it is this document that the store does not take
                _broke(run, number)
            except ChatError as error:
                if error.code != "too_many_documents":
                    raise
                return Refusal(error.code, error.message)
            except Exception:  # such as a collision with others, again and again
                _broke(run, number)
        return _BROKEN

    def _say(self, live: LiveRun, file: ImportFile, of: int) -> None:
        self._journal.append(live, _said(file, of))


def _unsaid(live: LiveRun, files: Sequence[ImportFile]) -> Sequence[ImportFile]:
    """Those that the log does not tell of: it tells of them in their order."""
    return files[sum([isinstance(event, ImportDocument | ImportRefused) for event in live.events]) :]


def _broke(run: Run, number: int) -> None:
    logger.exception("file %s of an import broke", number, extra={"run_id": run.id})


def _said(file: ImportFile, of: int) -> ImportEvent:
    if file.refusal is not None:
        return ImportRefused(file.name, file.refusal.code, file.refusal.message, file.number, of)
    assert file.document is not None
    return ImportDocument(file.name, file.document, file.chunks, file.number, of)


async def _to_its_end(work: Awaitable[None]) -> None:
    """Await it, even when this task is cancelled meanwhile: what is stored is to be said before the run ends here."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:  # a stop, and then trouble with the log, or a shutdown
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled() and task.exception() is not None:
        logger.warning("a file was not done: %s", task.exception())
    raise cancelled
