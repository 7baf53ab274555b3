"""The image as the `Dockerfile` makes it, in a container that may do as little as `compose.yaml` allows."""

from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.live.checks import check_run
from tests.live.containers import BASE, IMAGE, Container, Containers
from tests.live.service import text_of

MESSAGE = "A dozen words or more that are said while the container is told to stop and has to go."

LAYERS, WHOLE = 80_000_000, 200_000_000
"""Bytes on disk, not compressed: what the image adds to its base, and all of it."""

GRACE = 35
"""Seconds, as in compose.yaml."""


@pytest.fixture
async def containers() -> AsyncIterator[Containers]:
    with TemporaryDirectory() as folder:  # podman takes no path of more than 50 characters, as tmp_path may be
        made = Containers(Path(folder))
        yield made
        await made.clear()


@pytest.mark.timeout(1200)  # once in a machine's life the base is made: a minute, or five on a busy one
async def test_image(containers: Containers, tmp_path: Path) -> None:
    """All in one, because to build it takes longer than all else."""
    await containers.build("requirements-postgres.txt")
    await check_what_it_is(containers)
    # A pause that lets the answer outlast the drain, so that it is handed back.
    async with Container(containers, tmp_path, STREAM_DELAY="0.5", DRAIN_SECONDS="1") as container:
        await check_rights(container)
        await check_health(container)
        await check_stop(container)


async def check_what_it_is(containers: Containers) -> None:
    image, base = await containers.inspect(IMAGE), await containers.inspect(BASE)
    assert image["Size"] < WHOLE
    assert image["Size"] - base["Size"] < LAYERS
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["Volumes"]) == {"/data"}
    assert "/health" in image["Healthcheck"]["Test"][-1]
    assert config["Cmd"] == ["python", "/app/server.py"]


async def check_rights(container: Container) -> None:
    """An ordinary user, with no capability and no way to one, in a root that nobody writes to."""
    _, status = await container.inside("cat", "/proc/1/status")
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(told["Uid"].split()) == set(told["Gid"].split()) == {"10001"}
    assert {told[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"
    for place in ("/app", "/", "/etc"):
        code, said = await container.inside("touch", f"{place}/here")
        assert (code, "Read-only file system" in said) == (1, True)
    assert (await container.inside("touch", "/data/here", "/tmp/here"))[0] == 0
    # Nobody can write the bytecode there later.
    assert (await container.inside("test", "-e", "/app/chat/__pycache__/engine.cpython-311.pyc"))[0] == 0
    assert (await container.inside("python", "-m", "pip", "--version"))[0] != 0


async def check_health(container: Container) -> None:
    assert await container.healthy()
    pages = ["/docs", "/playground", "/static/swagger-ui.css", "/static/swagger-ui-bundle.js"]
    assert [(await container.client.get(page)).status_code for page in pages] == [200] * 4


async def check_stop(container: Container) -> None:
    """SIGTERM reaches the service, which drains and is gone in time; the volume has the run, which then goes on."""
    run_id = await container.begin(MESSAGE)
    async with container.stream("GET", f"/runs/{run_id}/events") as watched:
        seen = [await anext(watched) for _ in range(3)]
        assert await container.stopped(GRACE) == 0
        seen += [frame async for frame in watched]
    assert text_of(seen) != MESSAGE
    await container.start()
    assert (await check_run(container, run_id))["status"] == "completed"
    assert await container.answer(run_id) == MESSAGE
    await container.stopped(GRACE)
