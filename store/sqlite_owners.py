"""Which processes live. A run belongs to one, and passes on when that one is dead."""

import fcntl
import os
import time
from pathlib import Path

import aiosqlite

from chat.ids import new_id


class Owners:
    """This process as an owner of runs, and its judgement of the others.

    An owner is dead when the kernel has let go of its lock (at once after a kill), or when its counter of beats has
    stood still for ``lease`` seconds of *this* process's monotonic clock (it is frozen). No two clocks are ever
    compared. A dead owner's row is deleted and its id is never given out again: that id is the fencing token which
    every commit checks.
    """

    def __init__(self, database: Path, *, lease: float) -> None:
        self._database = database
        self._lease = lease
        self._held: tuple[Path, int] | None = None
        self._seen: dict[int, tuple[int, float]] = {}
        self.id = 0

    async def register(self, db: aiosqlite.Connection) -> None:
        """Become a new owner. The lock is held before anybody can see the row."""
        self.close()
        lock = self._database.with_name(f"{self._database.name}-{new_id('owner')}")
        file = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held = lock, file
        rows = list(await db.execute_fetchall("INSERT INTO owners (lock) VALUES (?) RETURNING id", (lock.name,)))
        self.id = rows[0][0]

    async def beat(self, db: aiosqlite.Connection) -> None:
        """Say that this process lives; come back as a new owner if it was declared dead meanwhile."""
        alive = await db.execute_fetchall("UPDATE owners SET beats = beats + 1 WHERE id = ? RETURNING id", (self.id,))
        if not list(alive):
            await self.register(db)

    async def bury(self, db: aiosqlite.Connection) -> None:
        """Delete the owners that are dead. Their runs are then anybody's."""
        now = time.monotonic()
        seen: dict[int, tuple[int, float]] = {}
        for owner, lock, beats in await db.execute_fetchall("SELECT id, lock, beats FROM owners"):
            if owner == self.id:
                continue
            before = self._seen.get(owner, (beats, now))
            seen[owner] = before if before[0] == beats else (beats, now)
            path = self._database.with_name(lock)
            if now - seen[owner][1] > self._lease or not _is_locked(path):
                await db.execute_fetchall("DELETE FROM owners WHERE id = ?", (owner,))
                path.unlink(missing_ok=True)
        self._seen = seen

    def forget(self) -> None:
        """Drop what was observed: while nobody can write, an owner that lives cannot beat either."""
        self._seen.clear()

    async def resign(self, db: aiosqlite.Connection) -> None:
        """Stop being an owner; this process's runs are then anybody's."""
        await db.execute_fetchall("DELETE FROM owners WHERE id = ?", (self.id,))

    def close(self) -> None:
        """Let go of the lock and remove its file."""
        if self._held is not None:
            lock, file = self._held
            lock.unlink(missing_ok=True)
            os.close(file)
            self._held = None


def _is_locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
