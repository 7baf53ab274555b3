"""One SQLite file: a writer, a few readers, and what their errors mean."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias, TypeVar

import aiosqlite

from chat.errors import StoreCorruptError, StoreNewerError, StoreUnavailableError
from store.rows import Work
from store.sqlite_rows import SqliteRows, at_once

T = TypeVar("T")
Job: TypeAlias = Callable[[sqlite3.Connection], T]
"""What the connection's thread does."""

READERS = 2
"""Connections for reading: a page of history must not wait for a long list, and more would only compete."""

BUSY_TIMEOUT_MS = 5_000
"""How long a statement waits for another process's lock before it is refused."""

EMPTY_TIMEOUT_MS = 50
"""The same to empty the log, which has time until the next try: whoever commits waits meanwhile. Reads take a few."""

WRITER_TIMEOUT = 5.0
"""Seconds that a write waits for its turn: behind a lock that is not given, each would wait for all before it."""

CHECKPOINT_EVERY = 200
"""Commits after which what is in the -wal file is moved to where it belongs, on a connection of its own: commits go on
meanwhile, where SQLite itself would let one of them do it and wait for the disk twice."""

LOG_PAGES = 4_000
"""Pages in the -wal file from which on commits wait while the rest of them is moved. Only so does the file begin anew
where somebody always commits while the other connection moves; and by then that has left little to do. A commit does it
by itself where few of them bring as much."""

PAGE_BYTES = 8192
"""Of a file that is made; one that exists keeps its own. An answer of 300 tokens leaves less of such a page empty: the
file grows by 2.3 bytes a byte of text instead of 2.6."""

CHECK_UP_TO = 128 * 2**20
"""Bytes. A file of at most this size is checked whole before it is used; a larger one would delay the start."""

REWRITE_UP_TO = 16 * 2**20
"""Likewise, to write it anew behind a deletion: that takes 0.1 s, for which all that commits waits."""

logger = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations" / "sqlite"

# Result codes, https://www.sqlite.org/rescode.html; extended codes carry the primary one in their low byte.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
}


class Database:
    """Connections to one file.

    One writer: on a shared connection one task's rollback would erase another's insert. Every write is a ``BEGIN
    IMMEDIATE``: a transaction that begins as a reader and turns writer fails at once when another process has
    written meanwhile, however long the busy timeout.

    With ``extended`` readers have sqlite-vec's functions, where it is installed and may be loaded.
    """

    contradicted = sqlite3.IntegrityError
    """What the database says to rows that contradict each other."""

    def __init__(self, path: Path, *, extended: bool = False) -> None:
        self._path = path
        self._wanted = extended
        self.extended = False
        self._stack = AsyncExitStack()
        self._turn = asyncio.Lock()
        self._readers: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        self._writer: aiosqlite.Connection | None = None
        self._keeper: aiosqlite.Connection | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._commits = 0
        self._synchronous = ""
        self._version = 0
        self._corrupt = False

    async def open(self) -> None:
        """Open the file, create it if there is none, and bring its tables up to date.

        Raises:
            StoreUnavailableError: it cannot be opened or is locked; trying again can help.
            StoreNewerError: a later version of this service has been here; trying again cannot help.
            StoreCorruptError: it is damaged, or no SQLite database. It is left as it is.
        """
        async with AsyncExitStack() as stack:
            with self._translated():
                writer = await self._connect(stack, "rwc")
                keeper = await self._connect(stack, "rw")
                readers = [await self._connect(stack, "ro") for _ in range(READERS)]
            stack.push_async_callback(self._let_go, writer, keeper)
            self.extended = self._wanted and all([await self._do(reader, _extend) for reader in readers])
            if self._path.with_name(f"{self._path.name}-journal").exists():
                await self._do(writer, _look)  # a process died while it made the file: only a writer can roll that back
            await self._do(readers[0], self._check)
            await self._do(writer, lambda db: db.execute(f"PRAGMA page_size={PAGE_BYTES}").fetchall())  # of a new file
            await self._do(writer, lambda db: db.execute("PRAGMA journal_mode=WAL").fetchall())
            await self._do(writer, lambda db: self._transaction(db, lambda: _migrate(db), durable=True))
            await self._do(writer, lambda db: db.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}").fetchall())
            self._writer, self._keeper, self._readers = writer, keeper, asyncio.LifoQueue()
            for reader in readers:
                self._readers.put_nowait(reader)
            self._stack = stack.pop_all()

    async def close(self) -> None:
        """Close every connection, each when what is under way on it is done."""
        await self._stack.aclose()

    async def _checkpoint(self, keeper: aiosqlite.Connection) -> None:
        try:
            if await self._do(keeper, _move_log) >= LOG_PAGES and self._writer is not None:
                await self._take_turn()  # while nobody commits: else there is always something left
                try:
                    await self._do(self._usable(), _move_log)
                finally:
                    self._turn.release()
        except (StoreUnavailableError, StoreCorruptError):
            logger.warning("the -wal file could not be moved into the database; a later commit tries again")
        finally:
            self._keeping = None

    async def _let_go(self, writer: aiosqlite.Connection, keeper: aiosqlite.Connection) -> None:
        self._writer, self._keeper, self._synchronous = None, None, ""
        if self._keeping is not None:
            await self._keeping
        if self._corrupt:
            # The last connection to close folds the WAL into the file, unless it is one that may only read. A damaged
            # file stays as it is, and so does its WAL: both are needed to rescue what is in them.
            await writer.close()
            await keeper.close()

    async def write(self, work: Work[T], *, durable: bool) -> T:
        """Run ``work`` in one transaction and commit it. ``durable``: it survives power loss and not just a kill.

        A caller that is cancelled leaves the transaction to finish by itself.
        """
        await self._take_turn()
        try:
            return await self._do(
                self._usable(), lambda db: self._transaction(db, lambda: at_once(work(SqliteRows(db))), durable=durable)
            )
        finally:
            self._turn.release()
            self._commits += 1
            if self._commits >= CHECKPOINT_EVERY and self._keeping is None and self._keeper is not None:
                self._commits = 0
                self._keeping = asyncio.create_task(self._checkpoint(self._keeper))

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` on one consistent snapshot."""
        self._usable()
        reader = await self._readers.get()
        try:
            return await self._do(reader, lambda db: _snapshot(db, lambda: at_once(work(SqliteRows(db)))))
        finally:
            self._readers.put_nowait(reader)

    async def rewrite(self) -> None:
        """Write the file anew, if it is small. https://www.sqlite.org/lang_vacuum.html

        ``secure_delete`` overwrites a row where it lies, and not what it left where it lay before SQLite moved it to
        another page.
        """
        await self._take_turn()
        try:
            if self._path.stat().st_size <= REWRITE_UP_TO:
                await self._do(self._usable(), lambda db: db.execute("VACUUM"))
        finally:
            self._turn.release()

    async def empty_log(self) -> bool:
        """Move what is in the -wal file to where it belongs, and cut the file to nothing.

        False: somebody reads what is in it.
        """
        await self._take_turn()
        try:
            return await self._do(self._usable(), _empty_log)
        finally:
            self._turn.release()

    async def changed(self) -> bool:
        """Whether another process has committed since the last call.

        ``data_version`` does not move for commits of the connection that asks, so the writer has to ask.
        """
        [(version,)] = await self._do(self._usable(), lambda db: db.execute("PRAGMA data_version").fetchall())
        seen, self._version = self._version, version
        return bool(seen != version)

    def _usable(self) -> aiosqlite.Connection:
        if self._corrupt:
            raise StoreCorruptError
        if self._writer is None:
            raise StoreUnavailableError
        return self._writer

    async def _connect(self, stack: AsyncExitStack, mode: str) -> aiosqlite.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode={mode}"
        # A connection left open would hang the interpreter at exit, its thread is no daemon: close beside open.
        connection = await stack.enter_async_context(aiosqlite.connect(uri, uri=True, isolation_level=None))
        await connection.execute_fetchall(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        await connection.execute_fetchall("PRAGMA foreign_keys=ON")
        await connection.execute_fetchall("PRAGMA secure_delete=ON")  # the default of some systems, and not of others
        return connection

    async def _do(self, connection: aiosqlite.Connection, job: Job[T]) -> T:
        """Let the connection's thread do the whole job in one trip.

        aiosqlite's own methods make a trip for each statement: some 50 us of CPU and, where the loop is busy, a
        millisecond of waiting for the interpreter's lock. A caller that is cancelled does not stop the job, and the
        connection's next one waits behind it, so no half transaction stays behind.
        """

        def translated(db: sqlite3.Connection) -> T:
            with self._translated():
                return job(db)

        execute: Callable[..., Awaitable[T]] = connection._execute
        return await execute(translated, connection._conn)

    def _check(self, reader: sqlite3.Connection) -> None:
        _look(reader)
        small = self._path.stat().st_size <= CHECK_UP_TO
        if small and reader.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
            self._corrupt = True
            raise StoreCorruptError

    async def _take_turn(self) -> None:
        if not self._turn.locked():  # then this is no wait, and needs no timer
            await self._turn.acquire()
            return
        try:
            async with asyncio.timeout(WRITER_TIMEOUT):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailableError from None

    def _transaction(self, db: sqlite3.Connection, work: Callable[[], T], *, durable: bool) -> T:
        self._set_synchronous(db, "FULL" if durable else "NORMAL")
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work()
            db.commit()
        finally:
            if db.in_transaction:
                db.rollback()
        return result

    def _set_synchronous(self, db: sqlite3.Connection, level: str) -> None:
        # In WAL mode NORMAL leaves the fsync to the checkpoint; FULL makes one at the commit, which then covers
        # the NORMAL commits before it as well.
        if level != self._synchronous:
            db.execute(f"PRAGMA synchronous={level}")
            self._synchronous = level

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn sqlite3's errors into the domain's; what is our own mistake in SQL stays what it is."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED | _UNAVAILABLE:
                logger.warning("sqlite: %s (%s)", error, error.sqlite_errorname)
            # Without a code it is Python's own: text that is no UTF-8, which nobody has written. It quotes the text.
            if code in _DAMAGED or (code == 0 and isinstance(error, sqlite3.OperationalError)):
                self._corrupt = True
                raise StoreCorruptError from error
            if code in _UNAVAILABLE:
                raise StoreUnavailableError from error
            raise
        except OSError as error:  # of an owner's lock file
            logger.warning("%s", error)
            raise StoreUnavailableError from error


def _look(db: sqlite3.Connection) -> None:
    """Read something. From then on the connection has a lock on the file."""
    db.execute("SELECT count(*) FROM sqlite_schema").fetchall()


def _extend(db: sqlite3.Connection) -> bool:
    """Load sqlite-vec; False where that cannot be done, as with Pythons that were built without loading anything."""
    if find_spec("sqlite_vec") is None or not hasattr(db, "enable_load_extension"):
        return False
    import sqlite_vec

    try:
        db.enable_load_extension(True)  # noqa: FBT003
        db.load_extension(sqlite_vec.loadable_path())
    except sqlite3.OperationalError as error:  # of another C library than it was built for
        logger.warning("sqlite-vec: %s", error)
        return False
    finally:
        db.enable_load_extension(False)  # noqa: FBT003
    return True


def _move_log(db: sqlite3.Connection) -> int:
    """Move what is in the -wal file to where it belongs, as far as nobody is in the way; the pages that were in it."""
    [(_, pages, _)] = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return int(pages)


def _empty_log(db: sqlite3.Connection) -> bool:
    db.execute(f"PRAGMA busy_timeout={EMPTY_TIMEOUT_MS}").fetchall()
    try:
        [(busy, _, _)] = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}").fetchall()
    return not busy


def _snapshot(db: sqlite3.Connection, work: Callable[[], T]) -> T:
    db.execute("BEGIN")
    try:
        return work()
    finally:
        db.rollback()


def _migrate(db: sqlite3.Connection) -> None:
    [(version,)] = db.execute("PRAGMA user_version").fetchall()
    migrations = {int(file.name[:4]): file for file in sorted(_MIGRATIONS.glob("*.sql"))}
    if version > max(migrations):
        raise StoreNewerError
    for number, file in migrations.items():
        if number > version:
            for statement in _statements(file.read_text()):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={number}")


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit the transaction that makes a migration whole or nothing.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
