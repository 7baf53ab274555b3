"""One PostgreSQL database: a bounded pool, short transactions, and what its errors mean."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from chat.errors import StoreNewerError, StoreUnavailableError
from chat.ids import new_id
from store.postgres_errors import BROKEN, COLLIDED, DoubtfulError, FencedError, doubtful, translated
from store.postgres_rows import PostgresRows, bits, hidden, packed, shown
from store.rows import Entry, Work

T = TypeVar("T")

Connection: TypeAlias = Any
"""asyncpg has no types."""

Job: TypeAlias = Callable[[PostgresRows], Coroutine[Any, Any, T]]
"""What is done on one connection."""

CONNECTIONS = 8
"""Of one process. A transaction takes a millisecond: more would only compete, and PostgreSQL's own limit is 100."""

URGENT = 3
"""Of these, for what cannot wait behind a crowd of requests: commits, signs of life, and the followers' looks. Each is
one at a time."""

QUEUE_SECONDS = 30.0
"""The longest that a request waits for its turn. A thousand starts at once take a few seconds; whoever would wait for
longer than this is refused, and can ask again."""

POOLER_PORT = 6543
"""Of Supabase's pooler in transaction mode."""

CONNECT_SECONDS = 5.0
"""To reach the server."""

TRANSACTION_SECONDS = 5.0
"""The longest that a transaction may take before its connection is dropped: none of ours needs a tenth of it, so the
server is gone, or a lock is held by somebody who is."""

MIGRATION_SECONDS = 300.0
"""The same while the tables are brought up to date, or another process does it."""

ATTEMPTS = 5
"""How often a transaction is done again that collided with another one. It left nothing behind, so that is safe."""

_SCHEMA_LOCK = 0x7061726C6578

_MIGRATIONS = Path(__file__).parent / "migrations" / "postgres"

logger = logging.getLogger(__name__)


class Database:
    """A transaction has a connection to itself, and a task of its own that nobody cancels: a query that is cancelled
    leaves asyncpg's connection with an operation in progress.

    ``idle`` is in seconds: a process that stands still for so long inside a transaction is cut off by the server, and
    lets go of its locks. ``longest`` is what a transaction may take, in seconds, too. One that collides with another is
    tried ``attempts`` times in all.
    """

    contradicted = asyncpg.IntegrityConstraintViolationError
    """What the database says to rows that contradict each other."""

    def __init__(
        self,
        url: str,
        *,
        idle: float = TRANSACTION_SECONDS,
        longest: float = TRANSACTION_SECONDS,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._url, self._options = _split(url)
        self._longest = longest
        self._attempts = attempts
        self.name = new_id("process")
        self._pool: Connection = None
        self._turns = asyncio.Semaphore(CONNECTIONS - URGENT)
        self._jobs: set[asyncio.Task[Any]] = set()
        self._durable = ""
        # Every transaction sets these for itself: what is set for a session is lost, or another's, behind a pooler.
        self._limits = f"""SET LOCAL statement_timeout = {longest * 1000:.0f};
            SET LOCAL idle_in_transaction_session_timeout = {idle * 1000:.0f}"""

    async def open(self) -> None:
        """Reach the database and bring its tables up to date, one process at a time.

        Raises:
            StoreUnavailableError: it cannot be reached or used; trying again can help.
            StoreNewerError: a later version of this service has been here; trying again cannot help.
        """
        if "statement_cache_size" not in self._options and await self._shielded(self._is_pooled()):
            logger.warning(
                "postgres: a pooler is in between, so no statement stays prepared. In session mode they can: "
                "add ?statement_cache_size=100 to DATABASE_URL."
            )
            self._options["statement_cache_size"] = 0
        with translated():
            pool = asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=CONNECTIONS,
                timeout=CONNECT_SECONDS,
                init=_prepare,
                reset=_leave,
                **self._options,
            )
            await pool
        try:
            await self._shielded(self._migrate(pool))
        except BaseException:
            pool.terminate()
            raise
        self._pool = pool

    async def close(self) -> None:
        """Close every connection when what is under way is done."""
        pool, self._pool = self._pool, None
        if self._jobs:
            await asyncio.wait(self._jobs)
        if pool is not None:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await pool.close()
            except TimeoutError:  # the server does not say goodbye
                pool.terminate()

    async def connect(self) -> Connection:
        """A connection beside the pool, for who listens. To be closed."""
        with translated():
            return await asyncpg.connect(self._url, timeout=CONNECT_SECONDS, **self._options)

    async def write(self, work: Work[T], *, durable: bool, urgent: bool = False) -> T:  # noqa: ARG002
        """Run ``work`` in one transaction and commit it. It survives power loss, ``durable`` or not: without
        ``synchronous_commit`` it would not even survive a kill of the server, and what was seen would be gone.

        A caller that is cancelled leaves the transaction to finish by itself.
        """
        begin = f"BEGIN; SET LOCAL synchronous_commit = {self._durable}; {self._limits}"
        return await self._shielded(self._in_turn(work, begin, urgent=urgent))

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` on one consistent snapshot."""
        begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {self._limits}"
        return await self._shielded(self._in_turn(work, begin))

    async def glance(self, work: Work[T]) -> T:
        """The same for a single statement that is read all the time: in one trip to the server, and urgent."""
        if self._takes_apart:
            begin = f"BEGIN READ ONLY; {self._limits}"
            return await self._shielded(self._in_turn(work, begin, urgent=True))
        return await self._shielded(self._again(lambda: self._alone(work)))

    async def append(self, owner: int, fence: int, entries: Sequence[Entry], brings: T) -> T:
        """Add to the journal as an owner behind its fence, and commit that, in one trip to the server.

        So nobody waits for this process, however busy it is, while it has the journal's turn. If the connection is lost
        the statement may still be on its way: before it is looked for, or sent again, the fence has to be moved.

        Raises:
            FencedError: the owner is dead, or its fence is another.
        """

        async def work(db: PostgresRows) -> T:
            if not await db.append(owner, fence, entries, self._durable):
                raise FencedError
            return brings

        async def commit(db: PostgresRows) -> T:
            with doubtful(brings):
                return await work(db)

        if self._takes_apart:
            begin = f"BEGIN; {self._limits}"
            return await self._shielded(self._in_turn(work, begin, urgent=True))
        return await self._shielded(self._again(lambda: self._alone(commit)))

    async def _is_pooled(self) -> bool:
        """Whether who says hello is another one than who answers.

        In transaction mode a statement that one connection has prepared may be missing for it at the next time, or,
        worse, be another process's of the same name: no error has to tell.
        """
        with translated():
            connection = await asyncpg.connect(self._url, timeout=CONNECT_SECONDS, statement_cache_size=0)
            limit = asyncio.get_running_loop().call_later(CONNECT_SECONDS, _drop, connection)
            try:
                async with connection.transaction():
                    answering = await connection.fetchval("SELECT pg_backend_pid()")
                return bool(answering != connection.get_server_pid())
            finally:
                limit.cancel()
                await connection.close(timeout=CONNECT_SECONDS)

    async def _shielded(self, job: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._jobs.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that has gone does not ask for it, and asyncio would complain

    @property
    def _takes_apart(self) -> bool:
        """Whether there may be a pooler that gives the two steps of a statement different connections, if no
        transaction holds them together."""
        return self._options.get("statement_cache_size") == 0

    async def _in_turn(self, work: Job[T], begin: str, *, urgent: bool = False) -> T:
        def attempt() -> Awaitable[T]:
            return self._transaction(self._pool, work, begin, self._longest)

        if urgent:
            return await self._again(attempt)
        with translated():
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._turns.acquire()
        try:
            return await self._again(attempt)
        finally:
            self._turns.release()

    async def _alone(self, work: Job[T]) -> T:
        """Run what is one statement and has no transaction around it."""
        if self._pool is None:
            raise StoreUnavailableError  # not opened yet, or closed
        with translated():
            connection = await self._pool.acquire(timeout=CONNECT_SECONDS)
            limit = asyncio.get_running_loop().call_later(self._longest, _drop, connection)
            try:
                return await work(PostgresRows(connection, self.name))
            finally:
                limit.cancel()
                await self._pool.release(connection)

    async def _again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for _ in range(self._attempts - 1):
            try:
                return await attempt()
            except asyncpg.PostgresError as error:
                if error.sqlstate not in COLLIDED:
                    raise
        return await attempt()

    async def _transaction(self, pool: Connection, work: Job[T], begin: str, seconds: float) -> T:
        if pool is None:
            raise StoreUnavailableError  # not opened yet, or closed
        with translated():
            connection = await pool.acquire(timeout=CONNECT_SECONDS)
            # Not a timeout around the query: that would be a cancellation.
            limit = asyncio.get_running_loop().call_later(seconds, _drop, connection)
            try:
                try:
                    await connection.execute(begin)
                    result = await work(PostgresRows(connection, self.name))
                except BaseException:
                    await _roll_back(connection)
                    raise
                await _commit(connection, result)
            finally:
                limit.cancel()
                await pool.release(connection)
        return result

    async def _migrate(self, pool: Connection) -> None:
        limits = f"SET LOCAL statement_timeout = {MIGRATION_SECONDS * 1000:.0f}"
        self._durable = await self._transaction(pool, _durable_level, f"BEGIN; {limits}", MIGRATION_SECONDS)
        await self._transaction(pool, _bring_up_to_date, f"BEGIN; {limits}", MIGRATION_SECONDS)


def _drop(connection: Connection) -> None:
    with suppress(asyncpg.InterfaceError):  # the pool has seen already that it is lost
        connection.terminate()


async def _roll_back(connection: Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except (asyncpg.PostgresError, *BROKEN):
        _drop(connection)  # else the pool would hand it out again


async def _commit(connection: Connection, result: object) -> None:
    try:
        with doubtful(result):
            await connection.execute("COMMIT")
    except (asyncpg.PostgresError, DoubtfulError):
        _drop(connection)
        raise


async def _prepare(connection: Connection) -> None:
    """A PostgreSQL text holds every character but NUL; strings of bits are bytes here."""
    async with connection.transaction():  # what it asks goes in two steps, which a pooler has to keep together
        await connection.set_type_codec("text", schema="pg_catalog", encoder=hidden, decoder=shown, format="text")
        await connection.set_type_codec("varbit", schema="pg_catalog", encoder=bits, decoder=packed, format="binary")


async def _leave(_: Connection) -> None:
    """What a transaction sets is gone with it: nothing has to be reset between two of them."""


async def _durable_level(db: PostgresRows) -> str:
    """The operator may have asked for more than "on", such as that a standby has it, too; not for less."""
    [(level, encoding)] = await db.rows(
        "SELECT current_setting('synchronous_commit'), current_setting('server_encoding')"
    )
    if encoding != "UTF8":
        logger.error("postgres: the database's encoding is %s, and has to be UTF8", encoding)
        raise StoreUnavailableError
    return "on" if level == "off" else str(level)


async def _bring_up_to_date(db: PostgresRows) -> None:
    await db.rows("SELECT pg_advisory_xact_lock(?)", (_SCHEMA_LOCK,))
    await db.rows("CREATE TABLE IF NOT EXISTS parley_schema (version INTEGER NOT NULL)")
    [(version,)] = await db.rows("SELECT coalesce(max(version), 0) FROM parley_schema")
    migrations = {int(file.name[:4]): file for file in sorted(_MIGRATIONS.glob("*.sql"))}
    if version > max(migrations):
        raise StoreNewerError
    for number, file in migrations.items():
        if number > version:
            await db.script(file.read_text())
            await db.rows("INSERT INTO parley_schema VALUES (?)", (number,))


def _split(url: str) -> tuple[str, dict[str, Any]]:
    """The address, and what of it is asyncpg's to know.

    ``statement_cache_size=0`` is for poolers in transaction mode, which give each transaction another connection: there
    a prepared statement is not found again. Supabase's is known by its port; others when they are met.
    """
    address, _, text = url.partition("?")
    query = dict(parse_qsl(text, keep_blank_values=True))
    size = query.pop("statement_cache_size", "0" if urlsplit(url).port == POOLER_PORT else None)
    options = {} if size is None else {"statement_cache_size": int(size)}
    return f"{address}?{urlencode(query)}" if query else address, options
