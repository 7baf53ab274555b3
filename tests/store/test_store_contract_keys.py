"""What every store does, :class:`chat.ports.Store`: who is let in."""

import asyncio

from chat.keys import Key
from chat.ports import Store
from store import keys
from store.sql import SqlStore


async def test_keys_are_listed_until_they_are_deleted(store: Store, other: Store) -> None:
    assert isinstance(store, SqlStore)
    database = store._database
    assert await store.keys() == []
    for key in (Key("web", "d1", admin=False), Key("operator", "d2", admin=True)):
        assert await database.write(lambda db, key=key: keys.add_key(db, key), durable=True)  # type: ignore[misc]
    assert not await database.write(lambda db: keys.add_key(db, Key("web", "d3", admin=True)), durable=True)
    listed = await other.keys()
    assert [(key.name, key.digest, key.admin) for key in listed] == [("operator", "d2", True), ("web", "d1", False)]
    assert all(key.created_at > 1_700_000_000_000 for key in listed)
    assert await database.write(lambda db: keys.delete_key(db, "operator"), durable=True)
    assert not await database.write(lambda db: keys.delete_key(db, "operator"), durable=True)
    assert [key.name for key in await other.keys()] == ["web"]


async def test_a_secret_is_made_once_for_all_processes(store: Store, other: Store) -> None:
    made = await asyncio.gather(*[each.secret("tickets") for each in (store, other, store, other)])
    assert len(set(made)) == 1
    assert len(made[0]) == 43
    assert await other.secret("anonymous") != made[0]
    assert await store.secret("tickets") == made[0]
