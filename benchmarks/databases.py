"""A PostgreSQL database of the local cluster for a measurement, and the time that the server spends on it."""

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import Server, parley

SOCKETS = "/var/run/postgresql"


@contextmanager
def database() -> Iterator[str]:
    """The URL of a new one, which is dropped."""
    name = f"parley_bench_{secrets.token_hex(8)}"
    subprocess.run(["createdb", "--template=template0", "--encoding=UTF8", name], check=True)
    try:
        yield f"postgresql:///{name}?host={SOCKETS}"
    finally:
        subprocess.run(["dropdb", "--force", name], check=True)


def missing() -> str | None:
    """Why there can be none, if so. A role that may create databases, as the user who runs this, is enough."""
    if shutil.which("createdb") is None or find_spec("asyncpg") is None:
        return "not installed; apt-get install postgresql, scripts/install.sh requirements-dev.txt"
    found = subprocess.run(
        ["psql", "-qAt", "-d", "postgres", "-c", "SELECT"], check=False, capture_output=True, text=True
    )
    return found.stderr.strip() or None


def cpu_by_backend(url: str) -> dict[int, float]:
    """Seconds on a CPU so far of each of the server's processes that works for this database."""
    name = url.partition("///")[2].partition("?")[0]
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'"  # a name of ours
    listed = subprocess.run(["psql", "-qAt", "-d", "postgres", "-c", query], check=True, capture_output=True, text=True)
    found = {}
    for pid in map(int, listed.stdout.split()):
        with suppress(FileNotFoundError):  # it has gone meanwhile
            found[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return found


def replicas_on(stack: ExitStack, count: int, url: str, model: Server, **settings: str) -> list[Server]:
    """So many replicas with the same database, until the stack is left."""
    found = []
    for _ in range(count):
        folder = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
        replica = parley(folder, base_url=f"{model.url}/v1", DATABASE_URL=url, **settings)
        found.append(stack.enter_context(replica))
    return found
