"""Who is let in: keys of the command line, tickets of a real EventSource, and that no log has any of them."""

import asyncio
import sys
import time
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from tests.live.conftest import Serve
from tests.live.eventsource import browse, text
from tests.live.nursery import SERVER
from tests.live.service import PATIENCE, ROOT, Service
from tests.live.wire import Proxy
from tests.live.workers import connected, workers
from tests.programs import node_with

MESSAGE = "Ten words that\nget lost here and are found there."
SECRET = "canary-secret-" * 5


async def keys(service: Service, *arguments: str) -> str:
    """`python server.py keys`, beside the service; what it printed."""
    place = service.settings["DATABASE_URL"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), "keys", "--database-url", place, *arguments,
        cwd=service.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0
    return said.decode().strip()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def begun(service: Service, who: dict[str, str]) -> dict[str, str]:
    later = {**who, "Prefer": "respond-async"}
    answered = await service.client.post("/chat", json={"message": MESSAGE}, headers=later)
    assert answered.status_code == 202, answered.text
    run: dict[str, str] = answered.json()
    return run


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where the keys are kept, as settings."""
    return {"DATABASE_URL": request.getfixturevalue("url")} if request.param == "postgres" else {}


async def test_a_key_is_let_in_until_it_is_revoked_by_every_worker(serve: Serve, kept: dict[str, str]) -> None:
    service = await serve(AUTH="keys", WORKERS="2", STREAM_DELAY="0", **kept)
    key, other = await keys(service, "add", "web"), await keys(service, "add", "other")
    for worker in await workers(service, 2):
        async with connected(service, worker) as client, asyncio.timeout(PATIENCE):
            while (await client.get("/sessions", headers=bearer(key))).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    await keys(service, "revoke", "web")
    for worker in await workers(service, 2):
        async with connected(service, worker) as client, asyncio.timeout(PATIENCE):
            while (await client.get("/sessions", headers=bearer(key))).status_code != 401:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert (await client.get("/sessions", headers=bearer(other))).status_code == 200


async def test_an_eventsource_comes_back_with_its_ticket(serve: Serve) -> None:
    node = node_with("eventsource")
    service = await serve(AUTH="keys", STREAM_DELAY="0.05")
    key = bearer(await keys(service, "add", "web"))
    run = await begun(service, key)
    async with Proxy(service, 4) as proxy:
        [told] = await browse(node, proxy.url + run["events_url"])
        assert proxy.connections > 1
    assert text(told) == MESSAGE
    assert told[-1].code == 204
    [refused] = await browse(node, f"{service.url}/runs/{run['run_id']}/events")
    assert refused[-1].code == 401


@pytest.mark.parametrize("start", ["server.py", "uvicorn"])
async def test_no_key_token_or_ticket_is_logged(serve: Serve, start: str) -> None:
    settings = {"AUTH": "jwt", "JWT_SECRET": SECRET, "ANONYMOUS_USERS": "true", "LOG_LEVEL": "DEBUG"}
    service = await serve(**settings, STREAM_DELAY="0")
    if start == "uvicorn":
        await service.terminate()
        service.command = [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT), "server:app", "--port"]
        service.command += [str(service.port), "--log-level", "debug"]
        await service.start()
    key = await keys(service, "add", "web", "--admin")
    token = jwt.encode({"sub": "ann", "exp": time.time() + 600}, SECRET, "HS256")
    late = jwt.encode({"sub": "ann", "exp": time.time() - 600}, SECRET, "HS256")
    anonymous = (await service.client.post("/users/anonymous")).json()["token"]
    secrets = [SECRET, key, token, late, anonymous]
    for shown in (key, token, late, anonymous, f"{key}x", f"{token}x", f"{anonymous}x"):
        await service.client.get("/sessions", headers=bearer(shown))
        await service.client.get(f"/sessions?user_id=bob&token={shown}", headers=bearer(shown))
        await service.client.get(f"/runs/run_1/events?ticket={shown}")
    for shown in (key, token, anonymous):
        run = await begun(service, bearer(shown))
        [ticket] = parse_qs(urlsplit(run["events_url"]).query)["ticket"]
        secrets.append(ticket)
        followed = await service.client.get(run["events_url"])
        assert followed.text.endswith("data: [DONE]\n\n")
        await service.client.get(f"/runs/{run['run_id']}?ticket={ticket}")
    await service.terminate()
    log = service.log.read_text()
    assert log.count('"status": 401') > 10
    assert [part for secret in secrets for part in secret.split(".") if len(part) > 8 and part in log] == []


@pytest.mark.parametrize("settings", [{}, {"AUTH": "keys"}])
async def test_a_service_that_others_may_reach_says_that_it_asks_nobody(serve: Serve, settings: dict[str, str]) -> None:
    service = await serve(HOST="0.0.0.0", **settings)
    await service.terminate()
    assert ("NOBODY IS ASKED WHO THEY ARE" in service.log.read_text()) == (not settings)


async def test_a_service_that_nobody_else_may_reach_says_nothing(serve: Serve) -> None:
    service = await serve()
    await service.terminate()
    assert "NOBODY IS ASKED" not in service.log.read_text()


@pytest.mark.parametrize("settings", [{}, {"ALLOWED_ORIGINS": "https://a.example"}, {"AUTH": "keys"}])
async def test_a_service_that_any_page_may_ask_says_so(serve: Serve, settings: dict[str, str]) -> None:
    service = await serve(**{"ALLOWED_ORIGINS": "*"} | settings)
    await service.terminate()
    assert ("ANY PAGE MAY ASK" in service.log.read_text()) == (not settings)
