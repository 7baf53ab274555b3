"""Real proxies in front of a service, on ports of their own: nginx, haproxy and Caddy."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.live.service import ROOT, free_port
from tests.programs import accepting, program, running

DEPLOY = ROOT / "deploy"

NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{inside}
}}
"""

CADDY = """
{
    admin off
    auto_https disable_redirects
}
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Of 127.0.0.1, signed by itself. ``both``: the certificate and the key in one file."""

    certificate: Path
    key: Path
    both: Path


async def certificate(folder: Path) -> Certificate:
    made = Certificate(folder / "certificate.pem", folder / "key.pem", folder / "both.pem")
    process = await asyncio.create_subprocess_exec(
        program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", made.key, "-out", made.certificate, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    made.both.write_text(made.certificate.read_text() + made.key.read_text())
    return made


@asynccontextmanager
async def nginx(folder: Path, inside: str, *ports: int) -> AsyncIterator[None]:
    """``inside``: what stands in nginx's ``http`` block."""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, inside=inside))
    command = [program("nginx"), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    async with running(command, folder, accepting(*ports)):
        yield


@asynccontextmanager
async def haproxy(folder: Path, config: str, *ports: int) -> AsyncIterator[None]:
    (folder / "haproxy.cfg").write_text(config)
    async with running([program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")], folder, accepting(*ports)):
        yield


@asynccontextmanager
async def caddy(folder: Path, config: str, *ports: int) -> AsyncIterator[None]:
    (folder / "Caddyfile").write_text(CADDY + config)
    command = [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    async with running(command, folder, accepting(*ports)):
        yield


def deployed(name: str, changes: Mapping[str, object]) -> str:
    """A file of `deploy/` with other addresses and files; each has to be in it, once."""
    text = (DEPLOY / name).read_text()
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, str(after))
    return text


def ports_of(number: int) -> list[int]:
    """So many different ones."""
    ports: set[int] = set()
    while len(ports) < number:
        ports.add(free_port())
    return sorted(ports)
