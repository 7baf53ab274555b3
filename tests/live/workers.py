"""The worker processes behind one port, and connections that land on the one that is meant."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from tests.live.service import PATIENCE, Service


async def workers(service: Service, count: int) -> list[int]:
    """The ids of the worker processes, when there are so many."""
    async with asyncio.timeout(PATIENCE):
        while len(found := worker_ids(service)) < count:  # noqa: ASYNC110  # another process's children
            await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def connected(service: Service, worker: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose one connection this worker has accepted. A stream that is left early closes the connection."""
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE, limits=limits) as client:
        # All accept from one socket: with the others frozen, this one does.
        with frozen(*[other for other in worker_ids(service) if other != worker]):
            assert (await client.get("/health")).status_code == 200
        yield client


@contextmanager
def frozen(*processes: int) -> Iterator[None]:
    """They stand still while inside."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def worker_ids(service: Service) -> list[int]:
    """The ids of the worker processes that there are."""
    parent = service.pid
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
