"""Which processes live, by PostgreSQL's clock. A run belongs to one, and passes on when that one is dead."""

from chat.ports import SILENCE
from store.rows import Rows


class BuriedError(Exception):
    """This process was declared dead, or has not registered yet."""


class Owners:
    """This process as an owner of runs, and its judgement of the others.

    An owner is dead when it has not beaten for :data:`chat.ports.SILENCE` of the ``lease``, which is in seconds of the
    database's clock: the processes' own clocks say nothing. A dead owner's row is deleted and its id is never given out
    again: that id is the fencing token which every commit checks, and whose row every commit holds on to until it is
    done. ``fence`` is a second one, against this process's own commits of which it does not know what became.
    """

    def __init__(self, *, lease: float) -> None:
        self._lease = lease
        self.id = 0
        self.fence = 0

    async def register(self, db: Rows) -> int:
        """Make a new owner; its id."""
        [(owner,)] = await db.rows("INSERT INTO owners DEFAULT VALUES RETURNING id")
        return int(owner)

    async def move_fence(self, db: Rows) -> int:
        """Wait for what is being written, and refuse what was sent and comes later; the new fence.

        Raises:
            BuriedError: it is refused already.
        """
        found = await db.rows("UPDATE owners SET fence = fence + 1 WHERE id = ? RETURNING fence", (self.id,))
        if not found:
            raise BuriedError
        return int(found[0][0])

    async def attend(self, db: Rows) -> None:
        """Raises BuriedError."""
        if not await db.rows(f"SELECT 1 FROM owners WHERE id = ? {db.shared}", (self.id,)):  # noqa: S608  # nosec B608  # no value
            raise BuriedError

    async def beat(self, db: Rows) -> None:
        await db.rows("UPDATE owners SET beat = clock_timestamp() WHERE id = ?", (self.id,))

    async def bury(self, db: Rows) -> None:
        """Delete the owners that are dead. Their runs are then anybody's.

        While the server was down nobody could beat, so the lease counts from its start on. A beat in the future is from
        before the clock was turned back, and becomes one of now: it would hold for as long otherwise.
        """
        await db.rows("UPDATE owners SET beat = clock_timestamp() WHERE beat > clock_timestamp() + interval '1 second'")
        # Who is just committing holds on to its row, and is not waited for.
        await db.rows(
            """DELETE FROM owners WHERE id IN (
                   SELECT id FROM owners
                   WHERE greatest(beat, pg_postmaster_start_time())
                             < clock_timestamp() - make_interval(secs => :silence) AND id <> :id
                   FOR UPDATE SKIP LOCKED)""",
            {"silence": self._lease * SILENCE, "id": self.id},
        )

    async def resign(self, db: Rows) -> None:
        await db.rows("DELETE FROM owners WHERE id = ?", (self.id,))
