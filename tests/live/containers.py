"""The image of the `Dockerfile`, built and run with buildah and podman, with a Debian of our own as its base.

No registry is asked. The base has the name of the one that the `Dockerfile` names, Debian's Python 3.11 inside, and
about its size; it is kept in the user's cache folder, for it takes a minute to make. What pip installs is fetched by
the pip of this machine, the way that it is set up.
"""

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from tests.live.service import ROOT, Service
from tests.programs import program, unavailable

PYTHON = "3.11"
"""That of Debian 12."""

BASE = f"docker.io/library/python:{PYTHON}-slim"

CACHE = Path.home() / ".cache" / "parley"

IMAGE = "localhost/parley"

# podman's oldest crun knows control groups of one version only; a namespace of our own shows it the second one.
UNIFIED = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec " + '"$@"'

# What compose.yaml asks for. No limits beyond those that this machine has: to raise them takes a right of its own.
RUN = """run --rm --cgroups=disabled --network=host --ulimit=nofile=4096:4096 --ulimit=nproc=4096:4096
 --read-only --tmpfs=/tmp --cap-drop=ALL --security-opt=no-new-privileges"""


class Containers:
    """Images and containers in a folder that goes when the test does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._storage = ["--storage-driver=overlay", f"--root={folder / 'graph'}", f"--runroot={folder / 'run'}"]

    def podman(self, *arguments: object) -> list[str]:
        command = [program("podman"), *self._storage, *map(str, arguments)]
        if Path("/sys/fs/cgroup/unified").exists():
            return [program("unshare"), "--mount", "sh", "-c", UNIFIED, "sh", *command]
        return command

    async def build(self, requirements: str) -> None:
        """Build the image, with one of the requirements*.txt.

        Debian's packages come from its mirrors. chroot needs neither a daemon nor a bridge.
        """
        if os.geteuid() != 0:
            unavailable("buildah without a user namespace of its own takes root")
        await succeed(self.podman("import", await base(), BASE))
        wheels = self.folder / "wheels"
        pip = [Path(sys.base_prefix) / "bin/python3", "-m", "pip"]
        wanted = ["--require-hashes", "--only-binary=:all:", f"--python-version={PYTHON}", "-r", ROOT / requirements]
        await succeed([*pip, "--disable-pip-version-check", "download", "--quiet", "--dest", wheels, *wanted])
        (self.folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        await succeed([
            program("buildah"), *self._storage, "build", "--quiet", "--isolation=chroot", "--pull-never",
            "--format=docker", f"--build-arg=PYTHON={PYTHON}", f"--build-arg=REQUIREMENTS={requirements}",
            f"--volume={wheels}:/wheels:ro", f"--volume={self.folder / 'pip.conf'}:/etc/pip.conf:ro",
            f"--tag={IMAGE}", ROOT,
        ])  # fmt: skip

    async def inspect(self, image: str) -> dict[str, Any]:
        [described] = json.loads(await succeed(self.podman("image", "inspect", image)))
        return dict(described)

    async def clear(self) -> None:
        """Remove every container and image, and what is mounted for them."""
        await succeed(self.podman("rm", "--all", "--force", "--volumes", "--time=0"))
        await succeed(self.podman("rmi", "--all", "--force"))


class Container(Service):
    """The service in a container, with a volume that outlives it."""

    def __init__(self, containers: Containers, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)
        del self.settings["DATABASE_URL"]  # the image has its own
        self.name = f"parley-{self.port}"
        told = [part for name, value in self.settings.items() for part in ("--env", f"{name}={value}")]
        place = [f"--name={self.name}", f"--volume={self.name}:/data"]
        self._containers = containers
        self.command = containers.podman(*shlex.split(RUN), *place, *told, IMAGE)

    async def inside(self, *command: str) -> tuple[int, str]:
        """Run a command in the container; its exit status, and what it said."""
        return await run(self._containers.podman("exec", self.name, *command))

    async def healthy(self) -> bool:
        """Whether the image's own HEALTHCHECK says so."""
        return (await run(self._containers.podman("healthcheck", "run", self.name)))[0] == 0

    async def stopped(self, seconds: int) -> int:
        """Stop it as an orchestrator does, which kills what takes longer; the exit status, 137 for a kill."""
        await succeed(self._containers.podman("stop", f"--time={seconds}", self.name))
        return await self.exit()


async def base() -> Path:
    """The root of a small Debian with Python, as a tar file."""
    kept = CACHE / f"debian-12-python-{PYTHON}.tar"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        making = kept.with_suffix(f".{os.getpid()}.tar")
        without = [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale")]
        await succeed([
            program("mmdebstrap"), "--quiet", "--variant=apt", *without, "--dpkgopt=force-unsafe-io",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            f"--include=usr-is-merged,passwd,python{PYTHON}-venv",
            f'--customize-hook=ln -s python{PYTHON} "$1/usr/bin/python"', "bookworm", making,
        ])  # fmt: skip
        making.replace(kept)
    return kept


async def run(command: list[Any]) -> tuple[int, str]:
    """Its exit status, and all that it said."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace")


async def succeed(command: list[Any]) -> str:
    """What it wrote to stdout; a test that needed it fails with what it complained of."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complained = await process.communicate()
    assert process.returncode == 0, f"{command}: {complained.decode(errors='replace')[-4000:]}"
    return said.decode()
