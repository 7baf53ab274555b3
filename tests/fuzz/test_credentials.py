"""What is shown to be let in: keys, tokens, tickets; and where it comes from."""

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.keys import Key, digest_of, matching
from chat.seals import Seal
from handlers.clients import Clients
from handlers.guards import bearer_of
from handlers.identity import NOBODY
from handlers.sealing import ticket_in
from handlers.tokens import KeySet, Secret, Terms, Tokens
from tests.fuzz.strategies import json_values, nearly, odd_texts, written

SECRET = "a secret that is as long as it has to be" + "." * 24

headers = st.one_of(st.binary(max_size=60), odd_texts.map(lambda text: text.encode("utf-8", "replace")))


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@st.composite
def signed(draw: st.DrawFn) -> str:
    """A token with a right signature, whatever it says."""
    header = written(
        draw(nearly(st.just({"alg": "HS256", "typ": "JWT", "kid": "a", "crit": ["b64"]}) | st.just({"alg": "HS256"})))
    )
    claims = {"sub": "ann", "exp": 4e9, "nbf": 1, "iat": 1, "iss": "i", "aud": "p", "jti": "x"}
    payload = written(draw(nearly(st.just(claims))))
    payload = draw(
        st.sampled_from([payload, payload.replace(b"4000000000.0", b"1e999"), payload.replace(b"1,", b"NaN,")])
    )
    body = f"{_part(header)}.{_part(payload)}"
    return f"{body}.{_part(hmac.digest(SECRET.encode(), body.encode(), hashlib.sha256))}"


tokens = st.one_of(signed(), odd_texts, st.lists(st.binary(max_size=12).map(_part), max_size=4).map(".".join))


@given(tokens, st.booleans())
def test_a_token_is_somebodys_or_refused(token: str, bound: bool) -> None:
    terms = Terms(["HS256"], "i" if bound else None, "p" if bound else None)
    try:
        user = asyncio.run(Tokens(Secret(SECRET), terms).user_of(token))
    except ChatError as error:
        assert error.code == "unauthorized"
    else:
        assert 0 < len(user) <= 128


published_keys = st.sampled_from(
    [
        {"kty": "RSA", "kid": "a", "use": "sig", "alg": "RS256", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "kid": "a", "crv": "P-256", "x": "AQAB", "y": "AQAB"},
        {"kty": "OKP", "kid": "a", "crv": "Ed25519", "x": "AQAB"},
        {"kty": "oct", "kid": "a", "k": "AQAB"},
    ]
)
publishings = nearly(st.lists(published_keys, max_size=3).map(lambda keys: {"keys": keys}))


@given(publishings | json_values, st.text(max_size=4))
def test_a_provider_may_publish_anything(published: Any, key_id: str) -> None:
    keys = KeySet("https://login.example.org/keys")
    client = keys._client
    client.fetch_data = lambda: client._as_jwk_set_payload(json.loads(written(published)))  # type: ignore[method-assign]
    terms = Terms(["RS256", "ES256"], "i", "p")
    token = jwt.encode({"sub": "ann"}, SECRET, "HS256", {"kid": key_id}).split(".")
    token[0] = _part(json.dumps({"alg": "RS256", "kid": key_id}).encode())
    try:
        asyncio.run(Tokens(keys, terms).user_of(".".join(token)))
    except ChatError as error:
        assert error.code in ("unauthorized", "issuer_unavailable")
    else:
        raise AssertionError("nobody has signed it")


@given(odd_texts, st.dictionaries(odd_texts, odd_texts, max_size=3), st.binary(max_size=6))
def test_a_seal_opens_what_it_has_sealed_and_nothing_else(text: str, members: dict[str, str], more: bytes) -> None:
    seal = Seal(SECRET)
    sealed, _ = seal.sealed(members, 60)
    if len(sealed) < 1_000:
        assert seal.opened(sealed) == members
    assert seal.opened(text) is None
    assert Seal("another").opened(sealed) is None
    if more:
        assert seal.opened(more.decode("latin-1") + sealed) is None


@given(headers, st.binary(max_size=60))
def test_what_is_shown_is_read_or_refused(header: bytes, query: bytes) -> None:
    scope = {"type": "http", "headers": [(b"authorization", header)], "query_string": query}
    key = Key("a", digest_of("right"), admin=False)
    try:
        shown = bearer_of(scope)
    except ChatError as error:
        assert error.code == "unauthorized"
    else:
        assert (matching([key], shown) is None) is (shown != "right")
    ticket = ticket_in(scope)
    assert ticket is None or Seal(SECRET).opened(ticket) is None


addresses = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"{address}%eth0"),
    odd_texts,
    st.text(alphabet="x", min_size=100, max_size=200),
)


@given(addresses)
def test_an_address_is_a_client_with_a_short_name(address: str) -> None:
    client = Clients().who({"client": (address, 1)}, NOBODY)
    assert client is not None
    assert len(client.name) <= 100
