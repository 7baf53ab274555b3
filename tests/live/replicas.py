"""Three services with one PostgreSQL, and nginx in front of them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.live.conftest import Serve
from tests.live.proxies import deployed, nginx
from tests.live.service import Service
from tests.live.witness import Witness
from tests.postgres import rows

ADDRESSES = ("127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003")
"""Those of ``deploy/nginx-replicas.conf``."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """``front`` is no process: what is asked of it, nginx asks one of the ``services``."""

    url: str
    services: list[Service]
    owners: list[int]
    front: Service

    async def generating(self, run_id: str) -> Service:
        """Whose run it is; none of them may have been taken for dead before."""
        [(owner,)] = await rows(self.url, "SELECT owner FROM runs WHERE id = $1", run_id)
        return self.services[self.owners.index(owner)]


async def started(serve: Serve, url: str, count: int = 3, **settings: str) -> tuple[list[Service], list[int]]:
    """So many services, and the numbers that they have as owners of runs."""
    services, owners = [], []
    for _ in range(count):
        services.append(await serve(DATABASE_URL=url, PING_SECONDS="1", **settings))
        owners.append((await rows(url, "SELECT max(id) FROM owners"))[0][0])
    return services, owners


@asynccontextmanager
async def replicas(serve: Serve, folder: Path, url: str, **settings: str) -> AsyncIterator[Replicas]:
    services, owners = await started(serve, url, len(ADDRESSES), **settings)
    front = Service(folder)
    changes = {
        "listen 443 ssl http2": f"listen 127.0.0.1:{front.port}",
        "    ssl_certificate /etc/ssl/chat.example.org.pem;\n": "",
        "    ssl_certificate_key /etc/ssl/chat.example.org.key;\n": "",
        "proxy_read_timeout 45s": "proxy_read_timeout 3s",
    } | {address: f"127.0.0.1:{service.port}" for address, service in zip(ADDRESSES, services, strict=True)}
    async with front.client, nginx(folder, deployed("nginx-replicas.conf", changes), front.port):
        yield Replicas(url, services, owners, front)


async def said_twice(url: str) -> list[tuple[str, int]]:
    """What the journal has more than once, or not in order."""
    return await rows(
        url,
        """SELECT run_id, seq
           FROM (SELECT run_id, seq, lag(seq) OVER (PARTITION BY run_id ORDER BY pos) AS before FROM journal) AS log
           WHERE seq <> before + 1""",
    )


def all_see(witnesses: Sequence[Witness]) -> bool:
    """Whether each of them has been shown something."""
    return all(witness.accounts and witness.accounts[0].seen for witness in witnesses)
