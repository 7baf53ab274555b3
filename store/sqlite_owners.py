"""Which processes live. A run belongs to one, and passes on when that one is dead."""

import fcntl
import os
import time
from pathlib import Path

from chat.ids import new_id
from chat.ports import SILENCE
from store.rows import Rows


class Owners:
    """This process as an owner of runs, and its judgement of the others.

    An owner is dead when the kernel has let go of its lock (at once after a kill), or when its counter of beats has
    stood still for :data:`chat.ports.SILENCE` of the ``lease``, which is in seconds of *this* process's monotonic clock
    (it is frozen). No two clocks are ever compared. A dead owner's row is deleted and its id is never given out again:
    that id is the fencing token which every commit checks.
    """

    def __init__(self, database: Path, *, lease: float) -> None:
        self._database = database
        self._lease = lease
        self._held: tuple[Path, int] | None = None
        self._seen: dict[int, tuple[int, float]] = {}
        self.id = 0

    async def register(self, db: Rows) -> None:
        """Become a new owner. The lock is held before anybody can see the row."""
        self.close()
        lock = self._database.with_name(f"{self._database.name}-{new_id('owner')}")
        file = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held = lock, file
        [(self.id,)] = await db.rows("INSERT INTO owners (lock) VALUES (?) RETURNING id", (lock.name,))

    async def attend(self, db: Rows) -> None:
        await self.beat(db)

    async def beat(self, db: Rows) -> None:
        """Say that this process lives; come back as a new owner if it was declared dead meanwhile."""
        alive = await db.rows("UPDATE owners SET beats = beats + 1 WHERE id = ? RETURNING id", (self.id,))
        if not alive:
            await self.register(db)

    async def bury(self, db: Rows) -> None:
        """Delete the owners that are dead. Their runs are then anybody's."""
        now = time.monotonic()
        seen: dict[int, tuple[int, float]] = {}
        for owner, lock, beats in await db.rows("SELECT id, lock, beats FROM owners"):
            if owner == self.id:
                continue
            before = self._seen.get(owner, (beats, now))
            seen[owner] = before if before[0] == beats else (beats, now)
            path = self._database.with_name(lock)
            if now - seen[owner][1] > self._lease * SILENCE or not _is_locked(path):
                await db.rows("DELETE FROM owners WHERE id = ?", (owner,))
                path.unlink(missing_ok=True)
        self._seen = seen

    def forget(self) -> None:
        """Drop what was observed: while nobody can write, an owner that lives cannot beat either."""
        self._seen.clear()

    async def resign(self, db: Rows) -> None:
        """Stop being an owner; this process's runs are then anybody's."""
        await db.rows("DELETE FROM owners WHERE id = ?", (self.id,))

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
