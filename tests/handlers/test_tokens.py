"""JSON Web Tokens, and the identities and tickets that the service signs itself."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chat.seals import Seal
from handlers import sealing, tokens
from tests.handlers.test_identity import made, said
from tests.scripted import ScriptedModel
from tests.serving import Client, served

SECRET = "a secret that is as long as it has to be" + "." * 24
ISSUER, AUDIENCE = "https://login.example.org", "parley"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token, but for the changes. Times are seconds from now."""
    wanted: dict[str, Any] = {"sub": "ann", "iss": ISSUER, "aud": AUDIENCE, "exp": 60} | changes
    now = {name: time.time() for name in ("exp", "nbf") if wanted.get(name) is not None}
    given = {name: value for name, value in wanted.items() if value is not None}
    return given | {name: moment + given[name] for name, moment in now.items()}


def signed(key: Any = SECRET, algorithm: str = "HS256", key_id: str | None = None, **changes: Any) -> str:
    headers = {} if key_id is None else {"kid": key_id}
    return jwt.encode(claims(**changes), key, algorithm, headers)


def unsigned() -> str:
    return jwt.encode(claims(), "", "none")


@pytest.fixture
async def client(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Client]:
    settings = {"auth": "jwt", "jwt_secret": SECRET, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    async with served(tmp_path, model, **settings, anonymous_users=True) as client:
        yield client


async def asked(client: Client, token: str) -> tuple[int, str]:
    """Status, and the user or the code."""
    response = await client.post("/query", json={"prompt": "Hi"}, headers=bearer(token))
    return response.status_code, response.headers.get("X-User-Id") or response.json()["code"]


LET_IN = {
    "plain": {},
    "one of several audiences": {"aud": ["other", AUDIENCE]},
    "just over": {"exp": -tokens.LEEWAY / 3},
    "just not yet": {"nbf": tokens.LEEWAY / 3},
}


@pytest.mark.parametrize("changes", LET_IN.values(), ids=LET_IN)
async def test_the_user_of_a_token_is_its_sub(client: Client, changes: dict[str, Any]) -> None:
    assert await asked(client, signed(**changes)) == (200, "ann")


REFUSED = {
    "over": {"exp": -60},
    "not yet": {"nbf": 600, "exp": 3600},
    "for ever": {"exp": None},
    "of nobody": {"sub": None},
    "of nothing": {"sub": ""},
    "of a number": {"sub": 7},
    "of a strange user": {"sub": "ann\r\nX-Admin: 1"},
    "of too long a user": {"sub": "a" * 129},
    "for another service": {"aud": "billing"},
    "for no service": {"aud": None},
    "of another issuer": {"iss": "https://evil.example.org"},
    "of no issuer": {"iss": None},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
async def test_other_tokens_are_refused(client: Client, changes: dict[str, Any]) -> None:
    payload = claims(**changes)
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, payload)]
    body = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    signature = hmac.digest(SECRET.encode(), body.encode(), hashlib.sha256)
    token = f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert await asked(client, token) == (401, "unauthorized")


FORGED: dict[str, Callable[[], str]] = {
    "another secret": lambda: signed("another" + SECRET),
    "another algorithm": lambda: signed(SECRET, "HS512"),
    "no signature": unsigned,
    "cut": lambda: signed()[:-3],
    "no token": lambda: "a.b.c",
    "nothing of a token": lambda: "token",
    "a header that is no object": lambda: base64.urlsafe_b64encode(b"[]").decode().rstrip("=") + ".e30.e30",
    "a deep header": lambda: base64.urlsafe_b64encode(b"[" * 4000).decode() + ".e30.e30",
    "a long one": lambda: signed(note="x" * 20_000),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
async def test_forged_tokens_are_refused(client: Client, forged: Callable[[], str]) -> None:
    assert await asked(client, forged()) == (401, "unauthorized")


async def test_a_token_speaks_for_nobody_else(client: Client) -> None:
    ann = bearer(signed())
    for response in (
        await client.post("/chat", json={"message": "Hi", "user_id": "bob"}, headers=ann),
        await client.get("/sessions?user_id=bob", headers=ann),
        await client.get("/sessions", headers=ann | {"X-User-Id": "bob"}),
    ):
        assert said(response) == (403, "user_mismatch")
    same = await client.post("/chat", json={"message": "Hi", "user_id": "ann"}, headers=ann | {"X-User-Id": "ann"})
    assert same.headers["X-User-Id"] == "ann"
    assert said(await client.get("/metrics", headers=ann)) == (403, "forbidden")


async def test_keys_are_let_in_beside_tokens(client: Client) -> None:
    operator = await made(client, "operator", admin=True)
    assert (await client.get("/metrics", headers=operator)).status_code == 200
    assert await asked(client, "parley_wrong") == (401, "unauthorized")


# --- public keys


class Provider:
    """An identity provider with keys that it may change, and that may be away."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked = 0
        self.away = False
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                self.send_response(503 if provider.away else 200)
                self.end_headers()
                self.wfile.write(json.dumps({"keys": provider.keys}).encode())

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def publish(self, key: Any, key_id: str) -> None:
        kinds = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        self.keys.append({**kinds.to_jwk(key.public_key(), as_dict=True), "kid": key_id})

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    provider.publish(RSA, "first")
    yield provider
    provider.close()


@pytest.fixture
async def trusting(
    tmp_path: Path, model: ScriptedModel, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    monkeypatch.setattr(tokens, "UNKNOWN_SECONDS", 0.0)
    settings = {"auth": "jwt", "jwt_jwks_url": provider.url, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    async with served(tmp_path, model, **settings) as client:
        yield client


async def test_a_providers_keys_are_fetched_and_kept(trusting: Client, provider: Provider) -> None:
    for _ in range(3):
        assert await asked(trusting, signed(RSA, "RS256", "first")) == (200, "ann")
    assert provider.asked == 1


async def test_a_key_that_a_provider_has_changed_to_is_found(trusting: Client, provider: Provider) -> None:
    assert await asked(trusting, signed(RSA, "RS256", "first")) == (200, "ann")
    assert await asked(trusting, signed(EC, "ES256", "second")) == (401, "unauthorized")
    provider.keys.clear()
    provider.publish(EC, "second")
    assert await asked(trusting, signed(EC, "ES256", "second")) == (200, "ann")
    assert await asked(trusting, signed(RSA, "RS256", "first")) == (401, "unauthorized")


async def test_invented_key_ids_do_not_have_the_provider_asked_each_time(
    trusting: Client, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "UNKNOWN_SECONDS", 3600.0)
    for number in range(5):
        assert await asked(trusting, signed(RSA, "RS256", f"invented{number}")) == (401, "unauthorized")
    assert provider.asked == 1


async def test_a_public_key_is_no_secret(trusting: Client, provider: Provider) -> None:
    """Nobody may sign with what everybody knows, by claiming that it is a secret."""
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "first"}, claims())]
    body = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(public, body, hashlib.sha256)).rstrip(b"=")
    assert await asked(trusting, (body + b"." + signature).decode()) == (401, "unauthorized")
    assert await asked(trusting, unsigned()) == (401, "unauthorized")
    assert await asked(trusting, signed(EC, "ES256", "first")) == (401, "unauthorized")
    assert provider.asked <= 2


async def test_a_provider_that_is_away_is_no_way_in(
    trusting: Client, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.away = True
    refused = await trusting.get("/sessions", headers=bearer(signed(RSA, "RS256", "first")))
    assert said(refused) == (503, "issuer_unavailable")
    provider.away = False
    assert await asked(trusting, signed(RSA, "RS256", "first")) == (200, "ann")
    provider.away = True
    monkeypatch.setattr(tokens, "KEYS_SECONDS", 0.0)
    assert await asked(trusting, signed(RSA, "RS256", "first")) == (200, "ann")
    assert provider.asked == 3


# --- anonymous users


async def test_an_anonymous_user_is_one_that_nobody_else_can_be(client: Client) -> None:
    first, second = [(await client.post("/users/anonymous")).json() for _ in range(2)]
    assert first["user_id"] != second["user_id"]
    answered = await client.post("/chat", json={"message": "Hi", "session_id": "s1"}, headers=bearer(first["token"]))
    assert answered.headers["X-User-Id"] == first["user_id"]
    assert (await client.get("/sessions/s1", headers=bearer(second["token"]))).status_code == 404
    claimed = {"message": "Hi", "user_id": first["user_id"]}
    for token in (second["token"], signed()):
        assert said(await client.post("/chat", json=claimed, headers=bearer(token))) == (403, "user_mismatch")


async def test_an_anonymous_user_can_stay(client: Client) -> None:
    first = (await client.post("/users/anonymous")).json()
    again = await client.post("/users/anonymous", headers=bearer(first["token"]))
    assert (again.status_code, again.json()["user_id"]) == (201, first["user_id"])
    assert await asked(client, again.json()["token"]) == (200, first["user_id"])
    assert again.json()["expires_at"] / 1000 > time.time() + sealing.ANONYMOUS_SECONDS - 60
    for wrong in ("anon_x.y", signed()):
        assert said(await client.post("/users/anonymous", headers=bearer(wrong))) == (401, "unauthorized")


async def test_an_anonymous_identity_ends(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "ANONYMOUS_SECONDS", -1.0)
    assert await asked(client, (await client.post("/users/anonymous")).json()["token"]) == (401, "unauthorized")


@pytest.mark.parametrize("auth", ["none", "keys", "jwt"])
async def test_anonymous_identities_are_made_only_where_they_are_wanted(
    tmp_path: Path, model: ScriptedModel, auth: str
) -> None:
    wanted = auth != "jwt"
    async with served(tmp_path, model, auth=auth, jwt_secret=SECRET, anonymous_users=wanted) as client:
        assert said(await client.post("/users/anonymous")) == (404, "not_found")
        if auth == "jwt":
            assert await asked(client, "anon_" + Seal("any").sealed({"user": "x"}, 60)[0]) == (401, "unauthorized")


# --- tickets


async def begun(client: Client, who: dict[str, str]) -> dict[str, Any]:
    later = {**who, "Prefer": "respond-async"}
    run: dict[str, Any] = (await client.post("/chat", json={"message": "Hi"}, headers=later)).json()
    return run


async def test_a_ticket_follows_its_run_and_does_nothing_else(client: Client) -> None:
    ann = bearer(signed())
    run, other = await begun(client, ann), await begun(client, ann)
    path, _, ticket = run["events_url"].partition("?")
    assert ticket.startswith("ticket=")
    followed = await client.get(f"{run['events_url']}&format=events")
    assert followed.status_code == 200
    assert "run.completed" in followed.text
    last = f"{run['run_id']}.{followed.text.count('id: ') - 1}"
    assert (await client.get(run["events_url"], headers={"Last-Event-ID": last})).status_code == 204
    assert (await client.head(run["events_url"])).status_code == 200
    for method, elsewhere in (
        ("GET", other["events_url"].partition("?")[0]),
        ("GET", f"/runs/{run['run_id']}"),
        ("POST", path),
        ("POST", f"/runs/{run['run_id']}/cancel"),
        ("POST", f"/runs/{run['run_id']}/ticket"),
        ("GET", f"/sessions/{run['session_id']}/events"),
        ("GET", "/sessions"),
        ("GET", "/chat"),
        ("GET", f"/v1/responses/{run['run_id']}"),
    ):
        refused = await client.request(method, f"{elsewhere}?{ticket}&message=Hi")
        assert refused.status_code == 401, (method, elsewhere)
    assert await asked(client, ticket.removeprefix("ticket=")) == (401, "unauthorized")
    assert await asked(client, "anon_" + ticket.removeprefix("ticket=")) == (401, "unauthorized")


async def test_a_ticket_is_short_lived(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = bearer(signed())
    run = await begun(client, ann)
    made_at = time.time()
    ticket = (await client.post(f"/runs/{run['run_id']}/ticket", headers=ann)).json()
    assert 590 < ticket["expires_at"] / 1000 - made_at < 610
    assert ticket["events_url"] == f"/runs/{run['run_id']}/events?ticket={ticket['ticket']}"
    monkeypatch.setattr(client.app.state.seals, "_ticket_seconds", -1.0)
    late = (await client.post(f"/runs/{run['run_id']}/ticket", headers=ann)).json()
    assert said(await client.get(late["events_url"])) == (401, "unauthorized")


@pytest.mark.parametrize("ticket", ["", "x", "a.b", "%00", "%ff.%ff", "W10.W10"])
async def test_what_is_no_ticket_is_refused(client: Client, ticket: str) -> None:
    run = await begun(client, bearer(signed()))
    assert said(await client.get(f"/runs/{run['run_id']}/events?ticket={ticket}")) == (401, "unauthorized")


async def test_a_ticket_of_a_deleted_run_finds_nothing(client: Client) -> None:
    ann = bearer(signed())
    run = await begun(client, ann)
    assert (await client.delete(f"/sessions/{run['session_id']}", headers=ann)).status_code == 204
    assert said(await client.get(run["events_url"])) == (404, "not_found")


async def test_where_nobody_is_asked_addresses_have_no_ticket(tmp_path: Path, model: ScriptedModel) -> None:
    async with served(tmp_path, model) as client:
        run = await begun(client, {})
        assert run["events_url"] == f"/runs/{run['run_id']}/events"
        ticket = (await client.post(f"/runs/{run['run_id']}/ticket")).json()
        assert (await client.get(ticket["events_url"])).status_code == 200
