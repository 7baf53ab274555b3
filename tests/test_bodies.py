import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from chat.commands import OnBusy
from chat.errors import ChatError
from handlers.bodies import (
    JSON_DEPTH,
    Body,
    ChatBody,
    FollowQuery,
    ListQuery,
    MessagesBody,
    QueryBody,
    SessionBody,
    SessionChanges,
    body_of,
    checked,
    parse_json,
    query_of,
)

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def request(body: bytes = b"", content_type: str | None = "application/json", query: str = "") -> Request:
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    return Request({"type": "http", "method": "POST", "headers": headers, "query_string": query.encode()}, receive)


# --- JSON


@given(documents, st.booleans())
def test_json_is_read_as_it_was_written(value: object, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(
    st.binary()
    | st.text(alphabet='{}[]",:\\ud8+-0123456789.eEnulltrfasNIiy \ufeff').map(lambda text: text.encode())
    | st.integers(0, 100_000).map(lambda depth: b"[" * depth + b"]" * depth)
)
def test_json_is_read_or_refused_and_can_be_written_down_again(raw: bytes) -> None:
    with suppress(ChatError):  # and nothing else
        json.dumps(parse_json(raw), ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b"NaN",
        b"[-Infinity]",
        b'{"a": 1e999}',
        b"-1e999",
        b'"\\ud83d"',
        b'{"\\ude00": 1}',
        b'"\xff"',
        b"[" * 100_000,
        b"1" * 5_000,
        b"\xef\xbb\xbf{}",
        '"é"'.encode("utf-16"),
        "{}".encode("utf-32"),
        b"{} {}",
        b'"\x00"',
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_no_json_in_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(ChatError) as caught:
        parse_json(raw)
    assert caught.value.code == "invalid_json"


def test_json_may_be_so_deep_and_no_deeper() -> None:
    def levels(depth: int) -> bytes:
        return b'{"a":[' * (depth // 2) + b"1" + b"]}" * (depth // 2)

    wide = b"[" + b"[]," * 500 + b"[]]"
    assert parse_json(wide) == [[]] * 501
    assert parse_json(levels(JSON_DEPTH)) == json.loads(levels(JSON_DEPTH))
    for depth in (JSON_DEPTH + 2, 900, 951):
        with pytest.raises(ChatError) as caught:
            parse_json(levels(depth))
        assert caught.value.code == "invalid_json"


def test_escaped_pair_is_a_character() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert parse_json(b"1e308") == 1e308
    assert math.copysign(1, parse_json(b"-0.0")) == -1  # type: ignore[arg-type]


# --- where it comes from


async def test_body_is_checked() -> None:
    body = await body_of(request(b'{"message": " Hi ", "unknown": [1]}'), ChatBody)
    assert (body.message, body.session_id, body.format, body.stream) == (" Hi ", None, "text", True)
    assert (body.on_busy, body.on_disconnect) == (OnBusy.REJECT, "continue")
    assert "parent_id" not in body.model_fields_set
    body = await body_of(request(b'{"message": "Hi", "parent_id": null, "on_busy": "queue"}'), ChatBody)
    assert "parent_id" in body.model_fields_set
    assert body.on_busy is OnBusy.QUEUE


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
async def test_body_is_json_by_its_type(content_type: str) -> None:
    assert (await body_of(request(b'{"prompt": "Hi"}', content_type), QueryBody)).prompt == "Hi"


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json"])
async def test_body_that_a_foreign_page_could_send_is_refused(content_type: str | None) -> None:
    with pytest.raises(ChatError) as caught:
        await body_of(request(b'{"prompt": "Hi"}', content_type), QueryBody)
    assert caught.value.code == "unsupported_media_type"


async def test_empty_body_is_an_empty_object() -> None:
    assert (await body_of(request(b"", None), SessionBody)).metadata == {}
    with pytest.raises(ChatError) as caught:
        await body_of(request(b""), QueryBody)
    assert caught.value.code == "invalid_request"


def test_query_is_checked() -> None:
    query = query_of(request(query="limit=7&after=12&unknown=1"), ListQuery)
    assert (query.limit, query.after, query.user_id) == (7, "12", None)
    with pytest.raises(ChatError) as caught:
        query_of(request(query="limit=many"), ListQuery)
    assert caught.value.details["errors"][0]["field"] == "limit"  # type: ignore[index]


# --- what is checked


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ChatBody, {}),
        (ChatBody, []),
        (ChatBody, None),
        (ChatBody, {"message": ""}),
        (ChatBody, {"message": 1}),
        (ChatBody, {"message": "Hi", "session_id": ""}),
        (ChatBody, {"message": "Hi", "session_id": "a b"}),
        (ChatBody, {"message": "Hi", "session_id": "a\n"}),
        (ChatBody, {"message": "Hi", "session_id": "a" * 65}),
        (ChatBody, {"message": "Hi", "session_id": "é"}),
        (ChatBody, {"message": "Hi", "user_id": "a/b"}),
        (ChatBody, {"message": "Hi", "format": "xml"}),
        (ChatBody, {"message": "Hi", "on_busy": "wait"}),
        (ChatBody, {"message": "Hi", "on_disconnect": "stop"}),
        (ChatBody, {"message": "Hi", "request_id": "a b"}),
        (ChatBody, {"message": "Hi", "request_id": "a" * 256}),
        (ChatBody, {"message": "Hi", "request_id": ""}),
        (QueryBody, {"prompt": ""}),
        (MessagesBody, {"messages": []}),
        (MessagesBody, {"messages": [{"role": "tool", "content": "x"}]}),
        (MessagesBody, {"messages": [{"role": "user"}]}),
        (SessionBody, {"title": "a" * 201}),
        (SessionBody, {"metadata": [1]}),
        (SessionChanges, {"metadata": None}),
        (ListQuery, {"limit": "0"}),
        (ListQuery, {"limit": "201"}),
        (FollowQuery, {"format": ""}),
    ],
)
def test_what_makes_no_sense_is_refused(kind: type[Body], value: object) -> None:
    with pytest.raises(ChatError) as caught:
        checked(kind, value)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("session_id", [".", "..", ".hidden", "a/b", "a b", "", "a" * 65])
def test_session_whose_address_nobody_could_ask_for_is_not_begun(session_id: str) -> None:
    """Clients take `/sessions/..` for `/`: https://url.spec.whatwg.org/#double-dot-path-segment"""
    with pytest.raises(ChatError) as caught:
        checked(ChatBody, {"message": "x", "session_id": session_id})
    assert caught.value.message.startswith("session_id: ")


def test_refusal_names_what_is_wrong_and_does_not_repeat_it() -> None:
    with pytest.raises(ChatError) as caught:
        checked(MessagesBody, {"messages": [{"role": "my secret", "content": "x"}], "sessionId": "my secret"})
    error = caught.value
    assert error.message.startswith("messages.0.role: ")
    assert error.details["errors"] == [
        {"field": "messages.0.role", "message": "Input should be 'user', 'assistant' or 'system'"},
        {"field": "sessionId", "message": "String should match pattern '^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$'"},
    ]
    assert "my secret" not in repr(error.details) + error.message


def test_refusal_of_the_whole_names_no_member() -> None:
    with pytest.raises(ChatError) as caught:
        checked(ChatBody, [1])
    assert caught.value.details["errors"] == [{"field": "", "message": caught.value.message}]


def test_names_are_taken_in_both_spellings() -> None:
    turns = [{"role": "user", "content": "Hi"}]
    for name in ("session_id", "sessionId"):
        assert checked(MessagesBody, {"messages": turns, name: "ses_1"}).session_id == "ses_1"


@pytest.mark.parametrize("user_id", ["ann", "ann@example.org", "auth0|5f7", "a.b-c_d:e+f", "a" * 128])
def test_user_ids_of_common_identity_providers_are_taken(user_id: str) -> None:
    assert checked(ChatBody, {"message": "Hi", "user_id": user_id}).user_id == user_id
