"""The command `python server.py import-docs FOLDER`."""

import argparse
import asyncio
import logging
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from chat.documents import COLLECTION, Documents
from chat.errors import ChatError, StoreCorruptError, StoreNewerError, StoreUnavailableError
from chat.ids import USER_ID
from chat.intake import EXTENSIONS, TITLE_CHARS, File, Intake, media_type_of
from knowledge.reading import AT_ONCE

DONE, FAILED, INTERRUPTED = 0, 1, 130
"""Exit statuses. Wrong arguments end with 2; 130 is what shells give a program that Ctrl-C has ended."""

BAR = 30
"""Characters of the progress bar."""

AGAIN = "Run the same command again to go on: what is there is not imported a second time."

_OPENING = {
    StoreNewerError: "The database belongs to a later version of Parley. Use that one.",
    StoreCorruptError: "The database is damaged.",
}


class Shelf(Documents, Protocol):
    """A store, as far as this needs one."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Summary:
    """What has become of the files."""

    imported: int = 0
    replaced: int = 0
    unchanged: int = 0
    refused: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.imported + self.unchanged + len(self.refused)

    def __str__(self) -> str:
        counts = [f"{self.imported:,} imported", f"{len(self.refused):,} refused", f"{self.unchanged:,} unchanged"]
        counts += [f"{self.replaced:,} earlier versions deleted"] if self.replaced else []
        return "\n".join([*(f"refused: {line}" for line in self.refused), f"{', '.join(counts)}."])


def main(arguments: Sequence[str], parts: Callable[[list[str]], tuple[Shelf, Intake]]) -> int:
    """Do it, say what was done, and return the exit status.

    ``parts`` reads the settings, with these arguments, and says where documents go and how they are taken in.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"argument FOLDER: {given.folder} is no folder")
    given.collection = given.collection or given.folder.resolve().name
    if not COLLECTION.fullmatch(given.collection):
        parser.error("argument --collection: name one, of up to 64 letters, digits, _ and -")
    store, intake = parts([] if given.database_url is None else ["--database-url", given.database_url])
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # on stderr: what the database has said
    work = _Import(store, intake, given, _Progress(sys.stderr))
    try:
        asyncio.run(work.run())
    except KeyboardInterrupt:
        _say(f"Interrupted. {AGAIN}")
        return INTERRUPTED
    except (StoreUnavailableError, StoreCorruptError) as error:
        _say(f"{_OPENING.get(type(error), 'The database cannot be used now.')} {AGAIN}")
        return FAILED
    finally:
        if work.found is not None:
            sys.stdout.write(f"{work.summary}\n")
    if not work.found:
        _say(f"There is no file in {given.folder} that is known by its name: {', '.join(EXTENSIONS)}.")
    return FAILED if work.summary.refused or not work.found else DONE


def _parser() -> argparse.ArgumentParser:
    known = ", ".join(EXTENSIONS)
    parser = argparse.ArgumentParser(
        prog="server.py import-docs",
        description=f"Import the files of a folder, and of those in it, as documents: {known}. What is hidden is left "
        "out, other files too. The service may be running. Each file is there as soon as it is done: after Ctrl-C, or "
        "a crash, the same command goes on. A file is known by its path in the folder, its document's title, and by "
        "what is in it: one that is there already, for the same user and in the same collection, is left as it is. One "
        "that has changed is imported beside its earlier version, or with --replace instead of it. Documents of files "
        "that are gone stay. The limits are the service's: MAX_DOCUMENT_BYTES, MAX_USER_DOCUMENTS.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--collection", metavar="NAME", help="the documents' collection; default the folder's name")
    parser.add_argument("--user", type=_user, metavar="ID", help="whose they are; without one all users may read them")
    parser.add_argument("--replace", action="store_true", help="delete the earlier version of a file that has changed")
    parser.add_argument("--database-url", metavar="URL", help="as the setting DATABASE_URL, which it goes before")
    return parser


def _user(text: str) -> str:
    if not USER_ID.fullmatch(text):
        raise argparse.ArgumentTypeError("use the user's id, as the service has it")
    return text


class _Import:
    """``found`` is how many files there are, None before they were counted."""

    def __init__(self, store: Shelf, intake: Intake, given: argparse.Namespace, progress: "_Progress") -> None:
        self._store = store
        self._intake = intake
        self._given = given
        self._progress = progress
        self._known: dict[str, dict[str | None, str]] = defaultdict(dict)
        self._full: ChatError | None = None
        self.summary = _Summary()
        self.found: int | None = None

    async def run(self) -> None:
        """Raises StoreUnavailableError, StoreCorruptError."""
        try:
            await self._store.open()
            for known in await self._store.known_documents(self._given.user, self._given.collection):
                self._known[known.title][known.digest] = known.id
            paths = list(files_in(self._given.folder))
            self.found, waiting = len(paths), iter(paths)
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._work(waiting))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the other worker was stopped by it, or has met the same
        finally:
            self._progress.end()
            await self._store.close()

    async def _work(self, paths: Iterator[Path]) -> None:
        for path in paths:
            title = title_of(path.relative_to(self._given.folder))
            try:
                outcome = await self._import(path, title)
            except (StoreUnavailableError, StoreCorruptError):
                raise
            except ChatError as error:
                if error.code == "too_many_documents":
                    self._full = error  # as all that follow will be
                outcome = f"refused: {error.message}"
                self.summary.refused.append(f"{shown(title)}: {error.message}")
            assert self.found is not None
            self._progress.step(self.summary.done, self.found, f"{shown(title)}: {outcome}")

    async def _import(self, path: Path, title: str) -> str:
        """What came of it. Raises ChatError: why nothing did."""
        if self._full is not None:
            raise self._full
        file = self._read(path, title)
        versions = self._known[title]
        if file.digest in versions:
            # An earlier run may have been cut off in between, or was not to replace anything.
            await self._replace([earlier for known, earlier in versions.items() if known != file.digest])
            self.summary.unchanged += 1
            return "unchanged"
        new = await self._intake.document(file, self._given.collection, self._given.user)
        stored = await self._store.add_document(new, self._intake.most)
        self.summary.imported += 1
        await self._replace(versions.values())
        return "1 passage" if stored.chunks == 1 else f"{stored.chunks:,} passages"

    async def _replace(self, versions: Iterable[str]) -> None:
        if self._given.replace:
            for earlier in versions:
                self.summary.replaced += await self._store.delete_document(earlier)

    def _read(self, path: Path, title: str) -> File:
        media_type = media_type_of(path.name, "")
        try:
            self._intake.check(media_type, path.stat().st_size)
            return File(path.name, title, media_type, path.read_bytes())
        except OSError as error:
            raise ChatError("document_unreadable", error.strerror or "It cannot be read.") from error


def files_in(folder: Path) -> Iterator[Path]:
    """The files that are known by their names, in order; nothing hidden, and no folder that is only linked to."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in EXTENSIONS and path.is_file():
                yield path


def title_of(path: Path) -> str:
    """The path in the folder, as text; its end, where it is longer than a title may be."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")[-TITLE_CHARS:]


def shown(text: str) -> str:
    """The text on one line, and nothing in it that a terminal obeys."""
    return "".join([character if character.isprintable() else "\ufffd" for character in text])


class _Progress:
    """A bar on a terminal, and a line for each file elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._bar = out.isatty()
        self._drawn = False

    def step(self, done: int, of: int, text: str) -> None:
        if self._bar:
            filled = BAR * done // of
            line = f"[{'#' * filled}{'.' * (BAR - filled)}] {done}/{of} {text}"
            self._out.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            self._drawn = True
        else:
            self._out.write(f"{done}/{of} {text}\n")
        self._out.flush()

    def end(self) -> None:
        if self._drawn:
            self._out.write("\n")
            self._drawn = False


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
