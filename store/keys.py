"""Keys, and what the service signs with: SQL beside the row mapping. Every function works inside a transaction."""

from collections.abc import Sequence

from chat.keys import Key
from store.rows import Rows, now_ms


async def list_keys(db: Rows) -> Sequence[Key]:
    found = await db.rows("SELECT name, digest, admin, created_at FROM keys ORDER BY name")
    return [Key(name, digest, bool(admin), created_at) for name, digest, admin, created_at in found]


async def add_key(db: Rows, key: Key) -> bool:
    """False if there is one of this name."""
    values = (key.name, key.digest, int(key.admin), now_ms())
    return bool(await db.rows("INSERT INTO keys VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING name", values))


async def delete_key(db: Rows, name: str) -> bool:
    """False if there is none."""
    return bool(await db.rows("DELETE FROM keys WHERE name = ? RETURNING name", (name,)))


async def find_secret(db: Rows, name: str) -> str | None:
    found = await db.rows("SELECT value FROM secrets WHERE name = ?", (name,))
    return found[0][0] if found else None


async def make_secret(db: Rows, name: str, value: str) -> str:
    """The secret of this name: this one, unless there is another already."""
    await db.rows("INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
    found = await find_secret(db, name)
    assert found is not None
    return found
