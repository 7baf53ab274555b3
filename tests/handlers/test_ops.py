import pytest

from chat.errors import StoreUnavailableError
from server import VERSION
from tests.serving import Client


async def test_root_tells_programs_what_there_is(client: Client) -> None:
    body = (await client.get("/")).json()
    assert (body["status"], body["service"], body["version"]) == ("ok", "parley", VERSION)
    assert body["titles"] is False
    assert body["endpoints"]["/chat"] == ["GET", "POST"]
    assert body["endpoints"]["/sessions/{session_id}"] == ["GET", "PATCH", "DELETE"]


async def test_root_sends_browsers_to_the_playground(client: Client) -> None:
    response = await client.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (response.status_code, response.headers["location"]) == (303, "/playground")
    assert (response.headers["cache-control"], "Accept" in response.headers["vary"]) == ("no-store", True)


@pytest.mark.parametrize("path", ["/health", "/chat/health"])
async def test_process_is_healthy_whatever_its_store_does(
    client: Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_is_gone(client, monkeypatch)
    response = await client.get(path)
    assert response.json() == {"status": "healthy", "service": "parley", "version": VERSION}
    assert response.headers["cache-control"] == "no-store"


async def test_process_is_ready_when_its_store_is(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    response = await client.get("/ready")
    assert (response.json(), response.headers["cache-control"]) == ({"status": "ready"}, "no-store")
    store_is_gone(client, monkeypatch)
    response = await client.get("/ready")
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert response.headers["retry-after"] == "2"


async def test_process_that_shuts_down_is_not_ready(client: Client) -> None:
    await client.app.state.engine.drain(0)
    response = await client.get("/ready")
    assert (response.status_code, response.json()["code"]) == (503, "draining")


def store_is_gone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone() -> None:
        raise StoreUnavailableError

    monkeypatch.setattr(client.app.state.engine.store, "check", gone)
