"""What nobody should send, and somebody does: every answer is a problem with a code, and none is a 500."""

import json

import httpx
import pytest

from tests.live.service import Service, text_of

JSON = "application/json"
DEEP, DIGITS = b"[" * 100_000, b"1" * 5_000
SURROGATE = b'"\\ud83d"'
LONG = "x" * 100_001

BODIES = [
    # Not JSON in UTF-8
    (b"{", JSON, 400, "invalid_json"),
    (b"not json", JSON, 400, "invalid_json"),
    (b'{"message": "a"} and more', JSON, 400, "invalid_json"),
    (b'{"message": "\xff\xfe"}', JSON, 400, "invalid_json"),
    (b'{"message": "\xed\xa0\xbd"}', JSON, 400, "invalid_json"),
    (b"\xef\xbb\xbf" + b'{"message": "a"}', JSON, 400, "invalid_json"),
    ('{"message": "a"}'.encode("utf-16"), JSON, 400, "invalid_json"),
    ('{"message": "a"}'.encode("utf-32"), JSON, 400, "invalid_json"),
    (DEEP, JSON, 400, "invalid_json"),
    (b'{"message": ' + DEEP, JSON, 400, "invalid_json"),
    (DIGITS, JSON, 400, "invalid_json"),
    (b'{"message": "a", "n": %b}' % DIGITS, JSON, 400, "invalid_json"),
    (b'{"message": "a", "n": NaN}', JSON, 400, "invalid_json"),
    (b'{"message": "a", "n": -Infinity}', JSON, 400, "invalid_json"),
    (b'{"message": %b}' % SURROGATE, JSON, 400, "invalid_json"),
    (b'{"message": "a", %b: 1}' % SURROGATE, JSON, 400, "invalid_json"),
    (b'{"message": "a\nb"}', JSON, 400, "invalid_json"),
    (b"\x00", JSON, 400, "invalid_json"),
    # JSON, and not what is asked for
    (b"", JSON, 422, "invalid_request"),
    (b"{}", JSON, 422, "invalid_request"),
    (b"[]", JSON, 422, "invalid_request"),
    (b"null", JSON, 422, "invalid_request"),
    (b'"message"', JSON, 422, "invalid_request"),
    (b"1e400", JSON, 400, "invalid_json"),
    (b'{"message": ""}', JSON, 422, "invalid_request"),
    (b'{"message": null}', JSON, 422, "invalid_request"),
    (b'{"message": 1}', JSON, 422, "invalid_request"),
    (b'{"message": ["a"]}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "session_id": 7}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "session_id": ""}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "session_id": "a b"}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "session_id": "a\\n"}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "session_id": "../../x"}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "session_id": "%b"}' % (b"x" * 65), JSON, 422, "invalid_request"),
    (b'{"message": "a", "user_id": "\\u0000"}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "parent_id": "msg_unknown"}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "parent_id": {"id": 1}}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "format": "xml"}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "stream": "perhaps"}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "on_busy": "explode"}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "on_disconnect": 1}', JSON, 422, "invalid_request"),
    (b'{"message": "a", "request_id": "has a space"}', JSON, 422, "invalid_request"),
    (b'{"message": "%b"}' % LONG.encode(), JSON, 422, "invalid_request"),
    # Not called JSON
    (b'{"message": "a"}', "text/plain", 415, "unsupported_media_type"),
    (b'{"message": "a"}', "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    (b'{"message": "a"}', "multipart/form-data; boundary=x", 415, "unsupported_media_type"),
    (b'{"message": "a"}', "", 415, "unsupported_media_type"),
    (b'{"message": "a"}', "application/jsonp", 415, "unsupported_media_type"),
    # Too much of it
    (b'{"message": "%b"}' % (b"x" * 2_000_000), JSON, 413, "body_too_large"),
    (b" " * 2_000_001, "text/plain", 413, "body_too_large"),
]


WRONG_MEMBERS = [
    ("/api/chat", {}),
    ("/api/chat", {"messages": []}),
    ("/api/chat", {"messages": "hi"}),
    ("/api/chat", {"messages": [{"role": "user"}]}),
    ("/api/chat", {"messages": [{"role": "user", "content": ""}]}),
    ("/api/chat", {"messages": [{"role": "user", "content": ["parts"]}]}),
    ("/api/chat", {"messages": [{"role": "tool", "content": "a"}]}),
    ("/api/chat", {"messages": [{"role": "system", "content": "a"}]}),
    ("/api/chat", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
    ("/api/chat", {"messages": [{"role": "user", "content": LONG}]}),
    ("/api/chat", {"messages": [{"role": "user", "content": "a"}], "sessionId": "no spaces"}),
    ("/query", {}),
    ("/query", {"prompt": ""}),
    ("/query", {"prompt": {"text": "a"}}),
    ("/query", {"prompt": LONG}),
    ("/query/stream", {"prompt": 1}),
    ("/sessions", {"session_id": "a/b"}),
    ("/sessions", {"user_id": "\u0000"}),
    ("/sessions", {"title": "x" * 201}),
    ("/sessions", {"title": 1}),
    ("/sessions", {"metadata": []}),
    ("/sessions", {"metadata": {"a": "x" * 16_384}}),
    ("/runs/run_x/retry", {"on_busy": "no"}),
]

WRONG_ADDRESSES = [
    ("/chat", 422, "invalid_request"),
    ("/chat?message=", 422, "invalid_request"),
    ("/chat?message=a&session_id=%00", 422, "invalid_request"),
    ("/chat?message=a&session_id=%0a", 422, "invalid_request"),
    ("/chat?message=a&parent_id=nobody", 422, "invalid_request"),
    ("/chat?message=a&format=html", 422, "invalid_request"),
    (f"/chat?message=a&request_id={'k' * 256}", 422, "invalid_request"),
    ("/sessions?limit=0", 422, "invalid_request"),
    ("/sessions?limit=201", 422, "invalid_request"),
    ("/sessions?limit=many", 422, "invalid_request"),
    (f"/sessions?limit={'9' * 5_000}", 422, "invalid_request"),
    ("/sessions?after=x", 422, "invalid_request"),
    (f"/sessions?after={'9' * 19}", 422, "invalid_request"),
    ("/sessions?after=%C2%B2", 422, "invalid_request"),
    ("/sessions?user_id=%00", 422, "invalid_request"),
    ("/sessions/x", 404, "not_found"),
    ("/sessions/%00", 404, "not_found"),
    ("/sessions/%ff", 404, "not_found"),
    ("/sessions/x/messages", 404, "not_found"),
    ("/sessions/x/messages?limit=-1", 422, "invalid_request"),
    ("/sessions/x/events", 404, "not_found"),
    ("/runs/x", 404, "not_found"),
    ("/runs/%00", 404, "not_found"),
    (f"/runs/{'x' * 10_000}", 404, "not_found"),
    ("/runs/x/events", 404, "not_found"),
    ("/runs/x/events?format=yaml", 422, "invalid_request"),
    ("/no/such/place", 404, "not_found"),
    ("/static/..%2fchat.py", 404, "not_found"),
    ("/api/chat", 405, "method_not_allowed"),
    ("/runs/x/cancel", 405, "method_not_allowed"),
]


def problem(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    body = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]


async def nothing_happened(service: Service) -> None:
    """Nothing is stored, nothing went wrong inside, and the service still serves."""
    assert service.rows("SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM runs)") == [(0, 0)]
    assert '"level": "ERROR"' not in service.log.read_text()
    assert text_of(await service.follow(await service.begin("Still here?"))) == "Still here?"


async def test_bad_bodies_are_refused_with_a_code(service: Service, subtests: pytest.Subtests) -> None:
    for body, content_type, status, code in BODIES:
        with subtests.test(body=body[:40], content_type=content_type):
            response = await service.client.post("/chat", content=body, headers={"Content-Type": content_type})
            problem(response, status, code)
    await nothing_happened(service)


async def test_no_path_takes_what_cannot_be_json(service: Service, subtests: pytest.Subtests) -> None:
    posts = ("/chat", "/api/chat", "/query", "/query/stream", "/sessions", "/sessions/create", "/runs/run_x/retry")
    for method, path in [*[("POST", path) for path in posts], ("PATCH", "/sessions/x")]:
        for body in (DEEP, DIGITS, b'{"title": %b}' % SURROGATE, b"\xff", b'{"a": NaN}'):
            with subtests.test(path=path, body=body[:40]):
                response = await service.client.request(method, path, content=body, headers={"Content-Type": JSON})
                problem(response, 400, "invalid_json")
        response = await service.client.request(method, path, content=b"{}", headers={"Content-Type": "text/plain"})
        problem(response, 415, "unsupported_media_type")
        response = await service.client.request(method, path, content=b" " * 2_000_001, headers={"Content-Type": JSON})
        problem(response, 413, "body_too_large")
    await nothing_happened(service)


async def test_wrong_members_are_named(service: Service, subtests: pytest.Subtests) -> None:
    for path, body in WRONG_MEMBERS:
        with subtests.test(path=path, body=str(body)[:60]):
            problem(await service.client.post(path, json=body), 422, "invalid_request")
    await nothing_happened(service)


async def test_metadata_that_is_nested_too_deep_is_refused(service: Service) -> None:
    for depth in (500, 5_000):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        body = b'{"metadata": %b}' % nested
        response = await service.client.post("/sessions", content=body, headers={"Content-Type": JSON})
        assert response.status_code in (201, 400, 422), response.text
        if response.status_code == 201:
            assert (await service.client.get(response.headers["location"])).json()["metadata"] == json.loads(nested)
    await nothing_happened(service)


async def test_wrong_addresses_and_queries_are_refused(service: Service, subtests: pytest.Subtests) -> None:
    for path, status, code in WRONG_ADDRESSES:
        with subtests.test(path=path[:60]):
            problem(await service.client.get(path), status, code)
    await nothing_happened(service)


async def test_a_bad_idempotency_key_is_refused(service: Service) -> None:
    for key in (b"k" * 256, b"k" * 10_000, b"two words", "clé".encode()):
        response = await service.client.post("/chat", json={"message": "a"}, headers={b"Idempotency-Key": key})
        problem(response, 422, "invalid_request")
    await nothing_happened(service)


async def test_a_request_id_that_could_harm_a_log_is_replaced(service: Service) -> None:
    for given in ("x" * 65, "has spaces", '{"json": 1}', "é"):
        response = await service.client.get("/health", headers={b"X-Request-Id": given.encode()})
        assert response.headers["x-request-id"].startswith("req_")
    good = await service.client.get("/health", headers={"X-Request-Id": "a.good-1"})
    assert good.headers["x-request-id"] == "a.good-1"
