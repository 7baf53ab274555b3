"""A PostgreSQL server of one's own, to be stopped, crashed and started as one likes."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from tests.live.service import free_port
from tests.programs import unavailable

OWNER = "postgres"
"""PostgreSQL refuses to be root; Debian's packages bring this user."""

OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "unix_socket_directories": "",
}

NOTHING: Mapping[str, str] = MappingProxyType({})


class Cluster:
    """In a folder of its own, on a port of its own that it keeps. ``data`` is where it keeps everything."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.port = free_port()
        self.data = folder / "data"
        self._programs = programs
        self._folder = folder
        self._one_command = asyncio.Lock()

    @property
    def url(self) -> str:
        """Of its one database."""
        return self.url_by(self.port)

    def url_by(self, port: int) -> str:
        """The same by way of another port."""
        return f"postgresql://{OWNER}@127.0.0.1:{port}/postgres"

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def running(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}").exists()
        except FileNotFoundError:
            return False

    def own(self) -> None:
        """Give it what was written or copied there."""
        if os.getuid() == 0:
            for path in (self.data, *self.data.rglob("*")):
                shutil.chown(path, OWNER)

    async def make(self, options: Mapping[str, str]) -> None:
        await self._run("initdb", "-D", self.data, "-U", OWNER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in {**options, "port": self.port}.items())

    async def start(self, environment: Mapping[str, str] = NOTHING) -> None:
        log = self._folder / "log"
        await self._run("pg_ctl", "start", "-w", "-D", self.data, "-l", log, environment=environment)

    async def stop(self, mode: str = "fast") -> None:
        """``fast``: every connection is closed, whatever it does; what was committed is kept.

        ``immediate``: as by a crash. What is not on the disk is lost, and the next start recovers the rest.
        """
        await self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", self.data)

    async def end(self) -> None:
        """Stop whatever there is, in whatever state an error has left it: it may end by itself meanwhile."""
        async with self._one_command:
            pass
        try:
            if self.running:
                await self.stop("immediate")
        except AssertionError:
            if self.running:
                raise

    async def _run(self, program: str, *arguments: str | Path, environment: Mapping[str, str] = NOTHING) -> None:
        """One command after the other, and each to its end: a test that fails meanwhile still has to clean up."""
        await asyncio.shield(self._run_whole(program, *arguments, environment=environment))

    async def _run_whole(self, program: str, *arguments: str | Path, environment: Mapping[str, str]) -> None:
        said = self._folder / "commands"
        with said.open("ab") as log:  # a pipe would be the server's, too, as long as it lives
            async with self._one_command:
                process = await asyncio.create_subprocess_exec(
                    self._programs / program, *arguments, cwd=self._folder, env={**os.environ, **environment},
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                    user=OWNER if os.getuid() == 0 else None,
                )  # fmt: skip
                status = await process.wait()
        told = [file.read_text()[-4000:] for file in (said, self._folder / "log") if file.exists()]
        assert status == 0, f"{program}: {''.join(told)}"


@asynccontextmanager
async def cluster(**options: str) -> AsyncIterator[Cluster]:
    """A new one that runs, and is deleted; ``options`` are of ``postgresql.conf``."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
    if not found[-1].name:
        unavailable("No initdb: install PostgreSQL's server")
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, OWNER)
        made = Cluster(found[-1].parent, folder)
        await made.make(OPTIONS | options)
        await made.start()
        try:
            yield made
        finally:
            await made.end()
    finally:
        shutil.rmtree(folder)
