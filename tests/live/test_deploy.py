"""The configurations of `deploy/` as they are, but for addresses and certificates: the doctor finds nothing."""

from pathlib import Path

import pytest

from doctor.judgement import Level, judge
from doctor.probe import Target, examine
from tests.live.proxies import Certificate, caddy, certificate, deployed, haproxy, nginx
from tests.live.replicas import ADDRESSES
from tests.live.service import Service, free_port

ORIGIN = "http://localhost:3000"
"""One that the service allows by default."""

UPSTREAM = "127.0.0.1:8000"


@pytest.fixture
async def own(tmp_path: Path) -> Certificate:
    return await certificate(tmp_path)


@pytest.fixture
def port() -> int:
    return free_port()


async def all_is_well(url: str, own: Certificate) -> None:
    measured = await examine(Target(url, origin=ORIGIN, idle=1, ca=str(own.certificate)))
    findings = judge(measured)
    assert [finding for finding in findings if finding.level is not Level.OK] == []
    checks = (
        "buffering compression post http request-headers response-headers resume idle connections body cors cookies"
    )
    assert [finding.check for finding in findings] == checks.split()


async def test_nginx(service: Service, tmp_path: Path, own: Certificate, port: int) -> None:
    changes = {
        UPSTREAM: f"127.0.0.1:{service.port}",
        "listen 443 ssl http2": f"listen 127.0.0.1:{port} ssl http2",
        "/etc/ssl/chat.example.org.pem": own.certificate,
        "/etc/ssl/chat.example.org.key": own.key,
    }
    async with nginx(tmp_path, deployed("nginx.conf", changes), port):
        await all_is_well(f"https://127.0.0.1:{port}", own)


async def test_nginx_before_replicas(service: Service, tmp_path: Path, own: Certificate, port: int) -> None:
    changes = {
        "listen 443 ssl http2": f"listen 127.0.0.1:{port} ssl http2",
        "/etc/ssl/chat.example.org.pem": own.certificate,
        "/etc/ssl/chat.example.org.key": own.key,
    } | dict.fromkeys(ADDRESSES, f"127.0.0.1:{service.port}")
    async with nginx(tmp_path, deployed("nginx-replicas.conf", changes), port):
        await all_is_well(f"https://127.0.0.1:{port}", own)


async def test_haproxy(service: Service, tmp_path: Path, own: Certificate, port: int) -> None:
    changes = {
        UPSTREAM: f"127.0.0.1:{service.port}",
        "bind :443": f"bind 127.0.0.1:{port}",
        "/etc/haproxy/chat.example.org.pem": own.both,
    }
    async with haproxy(tmp_path, deployed("haproxy.cfg", changes), port):
        await all_is_well(f"https://127.0.0.1:{port}", own)


async def test_caddy(service: Service, tmp_path: Path, own: Certificate, port: int) -> None:
    site = f"https://127.0.0.1:{port} {{\n\ttls {own.certificate} {own.key}"
    changes = {UPSTREAM: f"127.0.0.1:{service.port}", "chat.example.org {": site}
    async with caddy(tmp_path, deployed("Caddyfile", changes), port):
        await all_is_well(f"https://127.0.0.1:{port}", own)
