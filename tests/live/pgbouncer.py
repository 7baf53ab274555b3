"""PgBouncer in front of the PostgreSQL server that the tests use."""

import getpass
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.live.service import free_port
from tests.postgres import SERVER
from tests.programs import accepting, program, running


@asynccontextmanager
async def pooled(url: str, folder: Path, mode: str, size: int) -> AsyncIterator[str]:
    """The URL of the same database behind a pooler in this mode, which has ``size`` connections to it at most."""
    port, configuration = free_port(), folder / "pgbouncer.ini"
    # It does not run as root. Over its socket PostgreSQL takes its word for who it is, so that it is somebody there.
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    configuration.write_text(f"""
[databases]
* = {_server(user)}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 100
{f"user = {user}" if os.geteuid() == 0 else ""}
""")
    async with running([program("pgbouncer"), configuration], folder, accepting(port)):
        yield f"postgresql://{user}@127.0.0.1:{port}{urlsplit(url).path}"


def _server(user: str) -> str:
    """The tests' server, as PgBouncer names it."""
    parts = urlsplit(SERVER)
    where = {name: values[0] for name, values in parse_qs(parts.query).items() if name in ("host", "port")}
    if parts.hostname:
        where |= {"host": parts.hostname, "port": str(parts.port or 5432)}
    where["user"] = unquote(parts.username) if parts.username else user
    if parts.password:
        where["password"] = unquote(parts.password)
    return " ".join(f"{name}={value}" for name, value in where.items())
