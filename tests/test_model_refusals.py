"""The adapter against a real socket: servers that are not there or say no, and what the log says about it."""

import asyncio
import logging
import math
import tracemalloc
from collections.abc import Sequence
from email.utils import formatdate
from time import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.model import MAX_ERROR_BYTES, retry_after
from chat.ports import ModelRequest
from chat.sessions import Turn
from tests.asking import (
    AUTH,
    INVALID,
    KEY,
    RATE_LIMITED,
    REJECTED,
    UNAVAILABLE,
    UNREACHABLE,
    Kind,
    ask,
    kind,
    model_at,
    playing,
)
from tests.patience import soon
from tests.upstream import Action, End, Reply, Upstream, chunk, completion, done, finish, refusal, reply, sse

NOWHERE = "http://127.0.0.1:1/v1"
"""A port on which nothing listens."""


@pytest.mark.parametrize("base_url", [NOWHERE, "http://nowhere.invalid/v1", "no address", "ftp://127.0.0.1/"])
async def test_server_that_is_not_there_is_unreachable(base_url: str) -> None:
    async with model_at(base_url) as model:
        parts, error = await soon(ask(model))
    assert parts == []
    assert kind(error) == UNREACHABLE


async def test_tls_with_a_server_that_has_none_is_unreachable() -> None:
    async with Upstream(completion("a")) as upstream:
        tls = upstream.base_url.replace("http", "https")
        async with model_at(tls, connect=0.2) as model:
            assert kind((await soon(ask(model)))[1]) == UNREACHABLE


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", UNREACHABLE),
        (b"HTTP/1.1 200 OK\r\nContent-", UNREACHABLE),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", INVALID),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", INVALID),
    ],
)
async def test_what_is_not_http_is_no_answer(answer: bytes, expected: Kind) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server, model_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as model:
        assert kind((await soon(ask(model)))[1]) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (302, REJECTED),
        (400, REJECTED),
        (401, AUTH),
        (403, AUTH),
        (404, REJECTED),
        (408, UNAVAILABLE),
        (409, UNAVAILABLE),
        (422, REJECTED),
        (429, RATE_LIMITED),
        (500, UNAVAILABLE),
        (503, UNAVAILABLE),
        (529, UNAVAILABLE),
    ],
)
async def test_status_says_whether_to_ask_again(status: int, expected: Kind) -> None:
    async with playing(refusal(status, {"error": {"message": "secret"}})) as (upstream, model):
        parts, error = await soon(ask(model))
        assert len(upstream.requests) == 1
    assert parts == []
    assert kind(error) == expected
    assert "secret" not in repr(error)


async def test_404_says_what_is_missing() -> None:
    async with playing(refusal(404)) as (_, model):
        _, error = await ask(model)
    assert error is not None
    assert error.message == "The model or endpoint does not exist there."


@pytest.mark.parametrize(
    ("status", "final"),
    [(400, True), (413, True), (422, True), (401, False), (402, False), (404, False), (429, False), (500, False)],
)
async def test_only_a_text_that_is_refused_is_worth_no_other_model(status: int, *, final: bool) -> None:
    async with playing(refusal(status)) as (_, model):
        _, error = await ask(model)
    assert error is not None
    assert error.final is final


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (reply(End.HOLD), True),
        (reply(chunk("", role="assistant"), End.ABORT), True),
        (refusal(500), False),
        (refusal(504), False),
        (refusal(400), False),
        (reply(sse({"error": {"message": "busy"}})), False),
    ],
)
async def test_request_is_taken_up_once_an_answer_was_on_its_way(answer: Reply, *, taken: bool) -> None:
    async with playing(answer, silence=0.1 if taken else 5) as (_, model):
        _, error = await soon(ask(model))
    assert error is not None
    assert error.taken is taken


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/json", "Text/Plain"])
async def test_success_that_is_no_event_stream_is_no_answer(content_type: str) -> None:
    body = b'{"error": {"message": "secret"}}'
    async with playing(reply(body, finish(), done(), headers={"Content-Type": content_type})) as (_, model):
        parts, error = await soon(ask(model))
    assert parts == []
    assert kind(error) == INVALID


async def test_redirect_is_not_followed() -> None:
    async with Upstream(completion("a")) as other:
        away = reply(status=307, headers={"Location": f"{other.base_url}/chat/completions"})
        async with playing(away) as (_, model):
            assert kind((await soon(ask(model)))[1]) == REJECTED
        assert other.requests == []


@pytest.mark.parametrize("status", [429, 503])
async def test_upstream_may_say_when_to_come_back(status: int) -> None:
    async with playing(refusal(status, retry_after="1")) as (_, model):
        _, error = await ask(model)
    assert error is not None
    assert error.retry_after == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "300"}, 300),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "Wed, 99 Oct 99999 99:99:99 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@given(st.text())
def test_no_retry_after_is_too_odd(value: str) -> None:
    seconds = retry_after({"retry-after": value, "retry-after-ms": value})
    assert seconds is None or 0 <= seconds < math.inf


def test_retry_after_a_date() -> None:
    assert retry_after({"retry-after": formatdate(time() + 60, usegmt=True)}) == pytest.approx(60, abs=2)


@pytest.mark.parametrize(
    "actions", [[b"x", End.HOLD], [b"x" * MAX_ERROR_BYTES] * 1000, [b"x", End.CLOSE], [b"[" * 9000]]
)
async def test_body_of_an_error_is_read_for_a_moment_and_not_to_its_end(actions: Sequence[Action]) -> None:
    async with playing(reply(*actions, status=500), silence=60) as (_, model):
        tracemalloc.start()
        _, error = await soon(ask(model))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kind(error) == UNAVAILABLE
    assert peak < 8 << 20


@pytest.mark.parametrize("key", ["a\nb", "ä"])
async def test_key_that_cannot_be_sent_is_a_refusal(key: str) -> None:
    async with playing(completion("a"), api_key=key) as (_, model):
        assert kind((await ask(model))[1]) == REJECTED


async def test_text_that_cannot_be_sent_is_a_refusal() -> None:
    async with playing(completion("a")) as (upstream, model):
        assert kind((await ask(model, ModelRequest([Turn("user", "\ud83d")])))[1]) == REJECTED
        assert upstream.requests == []


# --- the log --------------------------------------------------------------------------------------------------


async def test_refused_key_is_an_error_in_the_log_without_any_secret(caplog: pytest.LogCaptureFixture) -> None:
    body = {"error": {"message": f"secret {KEY}", "code": "invalid_api_key", "type": "invalid_request_error"}}
    with caplog.at_level(logging.DEBUG):
        async with playing(refusal(401, body)) as (_, model):
            _, error = await ask(model)
    assert ("chat.model", logging.ERROR) in [(record.name, record.levelno) for record in caplog.records]
    assert "upstream_auth (status 401 invalid_api_key/invalid_request_error)" in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in repr(error)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (refusal(400, {"error": {"message": "secret", "code": "secret 1"}}), "upstream_rejected (status 400)"),
        (reply(headers={"Content-Type": "text/html"}), "upstream_invalid (status 200, not an event stream)"),
        (reply(chunk("secret"), End.CLOSE), "upstream_incomplete (ClientPayloadError from "),
        (reply(chunk("secret")), "upstream_incomplete (The model's answer broke off before it was complete.)"),
        (reply(b"data: secret\n\n"), "upstream_invalid (JSONDecodeError)"),
        (reply(sse({"error": {"message": "secret", "code": 429}})), "upstream_error (429)"),
    ],
)
async def test_failure_is_logged_with_its_cause_and_nothing_that_was_said(
    answer: Reply, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with playing(answer) as (_, model):
            await ask(model)
    assert f"model gpt-test: {line}" in caplog.text
    assert "secret" not in caplog.text


async def test_failures_do_not_carry_what_they_came_from() -> None:
    async with model_at(NOWHERE) as model:
        _, error = await ask(model)
    assert error is not None
    assert error.__cause__ is None
    assert error.__suppress_context__
