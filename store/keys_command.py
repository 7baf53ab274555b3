"""The commands `python server.py keys add|list|revoke`."""

import argparse
import asyncio
import logging
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from chat.keys import Key, digest_of, new_key
from store import keys
from store.transfer import TransferError
from store.transfer_command import DONE, FAILED, Opened, Place, opened

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def main(arguments: Sequence[str], place_of: Callable[[list[str]], Place]) -> int:
    """Do it, say what was done, and return the exit status. ``place_of``: as :mod:`store.transfer_command` has it."""
    given = _parser().parse_args(arguments)
    place = place_of([] if given.database_url is None else ["--database-url", given.database_url])
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # on stderr: what the database has said
    try:
        return asyncio.run(_done(place, given))
    except TransferError as error:
        return _failed(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="server.py keys",
        description="The keys of servers in front, which AUTH=keys asks for: see docs/security.md. The database has of "
        "each no more than a hash. The service may be running.",
    )
    parser.add_argument("--database-url", metavar="URL", help="as the setting DATABASE_URL, which it goes before")
    commands = parser.add_subparsers(dest="command", required=True, metavar="add|list|revoke")
    add = commands.add_parser("add", help="make a key and print it, this once")
    add.add_argument("name", type=_name, metavar="NAME")
    add.add_argument("--admin", action="store_true", help="it also opens /metrics, which is the operator's")
    commands.add_parser("list", help="print the names of the keys, and which are the operator's")
    revoke = commands.add_parser("revoke", help="end a key: within seconds nobody lets it in")
    revoke.add_argument("name", type=_name, metavar="NAME")
    return parser


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("use up to 64 letters, digits, points, hyphens and underscores")
    return text


async def _done(place: Place, given: argparse.Namespace) -> int:
    async with opened(place) as database:
        match given.command:
            case "add":
                return await _add(database, given.name, admin=given.admin)
            case "list":
                for key in await database.read(keys.list_keys):
                    made = datetime.fromtimestamp(key.created_at / 1000, UTC)
                    sys.stdout.write(f"{key.name}\t{'admin' if key.admin else 'user'}\t{made:%Y-%m-%dT%H:%M:%SZ}\n")
                return DONE
        if not await database.write(partial(keys.delete_key, name=given.name), durable=True):
            return _failed(f"There is no key named {given.name}.")
        sys.stderr.write(f"The key {given.name} is revoked: within seconds nobody lets it in.\n")
        return DONE


async def _add(database: Opened, name: str, *, admin: bool) -> int:
    text = new_key()
    if not await database.write(partial(keys.add_key, key=Key(name, digest_of(text), admin)), durable=True):
        return _failed(f"There is a key named {name} already. Revoke it first, or choose another name.")
    sys.stdout.write(f"{text}\n")
    sys.stderr.write("Keep it: it cannot be shown again.\n")
    return DONE


def _failed(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return FAILED
