"""The commands `python server.py export FILE` and `python server.py import FILE`."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from chat.errors import StoreCorruptError, StoreNewerError, StoreUnavailableError
from store import sqlite_search
from store.rows import Rows, Work
from store.sql import Database
from store.sqlite_database import Database as SqliteDatabase
from store.transfer import TransferError, exported, imported, told

DONE, FAILED = 0, 1
"""Exit statuses. Wrong arguments end with 2."""

LONGEST = 24 * 3600.0
"""Seconds that the one transaction may take: PostgreSQL's largest limit is 24 days, and no export takes one."""

TELL_EVERY = 100_000
"""Lines between two words about the progress."""

Place: TypeAlias = "Path | str"
"""SQLite's file or PostgreSQL's address."""


class Opened(Database, Protocol):
    """A database, whichever it is."""

    @property
    def contradicted(self) -> type[Exception]: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...


def main(arguments: Sequence[str], place_of: Callable[[list[str]], Place], version: str) -> int:
    """Do it, say what was done, and return the exit status.

    ``place_of`` reads the settings, with these arguments, and says where the database is. ``version`` is the service's.
    """
    command, *rest = arguments
    given = _parser(command).parse_args(rest)
    place = place_of([] if given.database_url is None else ["--database-url", given.database_url])
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # on stderr: what the database has said
    # Ctrl-C ends the process, and with it the transaction; a task that is cancelled would leave that to finish.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        asyncio.run(_export(place, given.file, version) if command == "export" else _import(place, given.file))
    except TransferError as error:
        _say(f"Nothing was {command}ed: {error}")
        return FAILED
    return DONE


def _parser(command: str) -> argparse.ArgumentParser:
    what = {
        "export": "Write all that the database holds at one moment into a new file. The service may be running.",
        "import": "Read into an empty database what was exported from another one: all of it or nothing.",
    }
    parser = argparse.ArgumentParser(prog=f"server.py {command}", description=what[command])
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON lines: see docs/postgresql.md")
    parser.add_argument("--database-url", metavar="URL", help="as the setting DATABASE_URL, which it goes before")
    return parser


async def _export(place: Place, file: Path, version: str) -> None:
    if isinstance(place, Path) and not place.exists():
        raise TransferError(f"There is no database at {place}.")
    with _made(file) as out:
        async with opened(place) as database:
            counts = await database.read(lambda db: _write(db, out, version))
    _say(f"Exported to {file}: {told(counts)}.")


async def _write(db: Rows, out: BinaryIO, version: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    async for kind, line in exported(db, version):
        with _about_files():
            out.write(line)
        _count(counts, kind)
    return counts


async def _import(place: Place, file: Path) -> None:
    async with opened(place) as database:
        try:
            counts = await database.write(lambda db: _read(db, file), durable=True)
        except database.contradicted as error:
            raise TransferError(f"Lines of the file contradict each other: {error}") from error
        except StoreUnavailableError as error:
            raise TransferError(
                "The database could not be used, or not to the end. If it says at the next try that there is something "
                "in it, then everything was imported all the same."
            ) from error
        _say(f"Imported from {file}: {told(counts)}.")
        _say("Making the index for searches. What is missing of it when this is stopped, the service adds.")
        try:
            while await database.write(_index_of(place), durable=False):
                pass
        except StoreUnavailableError:
            _say("It was not finished. The service goes on with it.")


async def _read(db: Rows, file: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    with _about_files():
        opened = file.open("rb")
    with opened:
        async for kind in imported(db, _lines(opened)):
            _count(counts, kind)
    return counts


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while True:
        with _about_files():
            line = file.readline()
        if not line:
            return
        yield line


def _count(counts: Counter[str], kind: str) -> None:
    counts[kind] += 1
    if (total := counts.total()) % TELL_EVERY == 0:
        _say(f"{total:,} lines")


def _index_of(place: Place) -> Work[bool]:
    if isinstance(place, Path):
        return sqlite_search.index
    from store import postgres_search

    return postgres_search.index


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Opened]:
    database = _database(place)
    try:
        await database.open()
        yield database
    except StoreNewerError as error:
        raise TransferError("The database belongs to a later version of Parley. Use that one.") from error
    except StoreCorruptError as error:
        raise TransferError("The database is damaged.") from error
    except StoreUnavailableError as error:
        raise TransferError("The database cannot be used now.") from error
    finally:
        await database.close()


def _database(place: Place) -> Opened:
    if isinstance(place, Path):
        return SqliteDatabase(place)
    from store.postgres_database import Database as PostgresDatabase  # here, because who has a file needs no asyncpg

    return PostgresDatabase(place, idle=LONGEST, longest=LONGEST, attempts=1)


@contextmanager
def _made(file: Path) -> Iterator[BinaryIO]:
    """A new file for what others have said, which only its owner may read. It goes again if it is not made whole."""
    with _about_files():
        out = os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
    try:
        with _about_files(), out:
            yield out
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        file.unlink()
        raise


@contextmanager
def _about_files() -> Iterator[None]:
    """An OSError here is about the file; of the databases' own, they say what it means."""
    try:
        yield
    except OSError as error:
        raise TransferError(f"{error.strerror or error}: {error.filename or 'the file'}.") from error


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
