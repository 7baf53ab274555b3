"""Requests of every protocol, nearly right: each is answered or refused with a code, and none is a mistake of ours."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chat.errors import ChatError
from chat.runs import parse_cursor
from handlers.errors import STATUS
from handlers.openapi.operations import OPERATIONS
from handlers.openapi.samples import EXAMPLES
from handlers.tracing import OpenTelemetryTracer
from tests.fuzz.application import Application
from tests.fuzz.strategies import json_values, nearly, odd_texts, written

NOT_ASKED = {"/doctor/stream", "/docs", "/playground"}
"""Takes as long as it is told to; says nothing but itself."""

STREAMING = {"Accept": "text/event-stream"}


@cache
def application() -> Application:
    """The same for all examples: what one leaves behind is there for the next."""
    return Application().__enter__()


@pytest.fixture(scope="module", autouse=True)
def _closed_in_the_end() -> Iterator[None]:
    yield
    if application.cache_info().currsize:
        application().__exit__()
        application.cache_clear()


TEXT = {"type": "text", "text": "Hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
SAID = {"inference_options": {}, "content": [{"type": "input_text", "text": "Hi"}], "attachments": []}

MORE: dict[str, list[Any]] = {
    "POST /chat": [{"message": "Hi", "session_id": "s", "parent_id": None, "variables": {"a": [1]}}],
    "POST /api/chat": [
        {"id": "s", "messages": [{"id": "1", "role": "user", "parts": [TEXT]},
                                 {"id": "2", "role": "assistant", "parts": [
                                     TEXT, {"type": "tool-f", "toolCallId": "c", "state": "output-available",
                                            "input": {}, "output": [1], "approval": {"id": "a", "approved": True}}]},
                                 {"id": "3", "role": "user", "parts": [TEXT]}],
         "tools": {"f": {"inputSchema": SCHEMA}}},
        {"messages": [{"role": "user", "content": "Hi"}], "sessionId": "s"},
    ],
    "POST /v1/chat/completions": [
        {"messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": [TEXT]},
                      {"role": "assistant", "content": None, "tool_calls": [CALL]},
                      {"role": "tool", "tool_call_id": "c", "content": "x"}],
         "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
         "response_format": {"type": "json_schema"}, "logit_bias": {"1": 2}, "metadata": {"session_id": "s"},
         "stream": True, "stream_options": {"include_usage": True}},
    ],
    "POST /v1/responses": [
        {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                   {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                   {"type": "function_call_output", "call_id": "c", "output": "x"}],
         "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}], "instructions": "Be.",
         "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}, "temperature": 0.5,
         "metadata": {"a": "b"}, "conversation": {"id": "s"}, "max_output_tokens": 7, "stream": True},
        {"input": "Hi", "previous_response_id": "run_x", "background": False},
    ],
    "POST /ag-ui": [
        {"threadId": "s", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "Hi"}],
         "tools": [{"name": "f", "description": "d", "parameters": SCHEMA}],
         "context": [{"description": "d", "value": "v"}], "forwardedProps": {"model": "echo"}},
    ],
    "POST /chatkit": [
        {"type": "threads.create", "params": {"input": SAID}, "metadata": {"request_id": "k"}},
        {"type": "threads.add_user_message", "params": {"thread_id": "s", "input": SAID}},
        {"type": "threads.retry_after_item", "params": {"thread_id": "s", "item_id": "x"}},
        {"type": "threads.list", "params": {"limit": 2, "order": "desc", "after": "1"}},
        {"type": "items.list", "params": {"thread_id": "s", "limit": 2, "order": "asc", "after": "x"}},
        {"type": "items.feedback", "params": {"thread_id": "s", "item_ids": ["x"], "kind": "positive"}},
        {"type": "threads.update", "params": {"thread_id": "s", "title": "T"}},
        {"type": "threads.custom_action", "params": {"thread_id": "s", "item_id": "x", "action": {"type": "t"}}},
    ],
    "POST /sessions": [{"session_id": "s", "title": "T", "metadata": {"a": [1]}, "template": "t", "variables": {}}],
}  # fmt: skip

ASKED = sorted(name for name in OPERATIONS if name.split()[1] not in NOT_ASKED)

ids = st.sampled_from(["s", "demo", "run_x"]) | odd_texts

HEADERS = [
    "Idempotency-Key", "Last-Event-ID", "X-Session-Id", "X-User-Id", "X-Request-Id", "X-Run-Id", "Prefer",
    "Authorization", "traceparent", "tracestate", "Accept", "Accept-Encoding", "X-Forwarded-For", "Origin",
    "Access-Control-Request-Method", "Content-Type",
]  # fmt: skip

header_values = st.one_of(
    odd_texts.map(lambda text: re.sub(r"[\r\n\0]", "", text).encode()),
    st.sampled_from([b"run_x.1", b"respond-async", b"k", b"\xff\xfe", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"]),
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    name = draw(st.sampled_from(ASKED))
    method, path = name.split()
    operation = OPERATIONS[name]
    url = re.sub(r"\{[^}]*\}", lambda _: quote(draw(ids), safe="") or "x", path)
    fields = [*(operation.query.model_fields if operation.query else ()), "ticket", "format"]
    query = draw(st.dictionaries(st.sampled_from(fields), ids, max_size=3))
    headers = {
        name.encode(): value
        for name, value in draw(st.dictionaries(st.sampled_from(HEADERS), header_values, max_size=3)).items()
    }
    arguments: dict[str, Any] = {"params": query, "headers": headers}
    if method in ("POST", "PATCH"):
        known = [EXAMPLES[kind] for kind in (operation.body, operation.or_body) if kind and kind in EXAMPLES]
        documents = [*known, *MORE.get(name, [])] or [{}]
        headers.setdefault(b"Content-Type", b"application/json")
        arguments["content"] = written(
            draw(nearly(st.sampled_from(documents)) | json_values), ascii_only=draw(st.booleans())
        )
    return method, url, arguments


def fits(response: Any, path: str) -> None:
    """It is an answer, or a refusal with a code of ours and its status."""
    assert response.status_code < 500 or response.status_code in (502, 503), response.text
    if response.status_code < 400 or "text/event-stream" in response.headers.get("content-type", ""):
        return
    if response.request.method == "HEAD" or response.headers["content-type"].startswith("text/plain"):
        return  # what CORS says
    told = response.json()
    code = told["error"]["code"] if path.startswith("/v1/") else told["code"]
    assert code in STATUS or code == "invalid_api_key", told
    assert code != "internal"


@settings(max_examples=150)
@given(requests())
def test_every_request_is_answered_or_refused(request: tuple[str, str, dict[str, Any]]) -> None:
    method, url, arguments = request
    fits(application().ask(method, url, **arguments), url)
    assert application().ask("GET", "/ready").status_code == 200


_PARTS = [
    b'--b\r\nContent-Disposition: form-data; name="collection"\r\n\r\nbox\r\n',
    b'--b\r\nContent-Disposition: form-data; name="title"\r\n\r\nTea\r\n',
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.md"\r\n\r\nTea.\r\n',
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/html\r\n\r\n<p>\r\n',
    b"--b--\r\n",
]

forms = st.lists(
    st.sampled_from(_PARTS) | st.binary(max_size=9) | st.sampled_from([b"\r\n", b"--b", b'"', b";", b"\0"])
)


@settings(max_examples=150)
@given(
    forms.map(b"".join), st.sampled_from(["b", "", '"b"', "b; charset=x", "b; charset=utf-16", "b" * 90]), header_values
)
def test_every_form_is_taken_or_refused(form: bytes, boundary: str, prefer: bytes) -> None:
    headers = {b"Content-Type": f"multipart/form-data; boundary={boundary}".encode(), b"Prefer": prefer}
    told = application().ask("POST", "/documents", content=form, headers=headers)
    assert told.status_code in (201, 202, 400, 409, 413, 415, 422, 429), told.text


@settings(max_examples=60)
@given(odd_texts.filter(str.strip), odd_texts, st.sampled_from(["s", None]))
def test_whatever_is_searched_for_is_words(said: str, looked_for: str, session: str | None) -> None:
    """FTS5 has a language of its own; nobody who types can say anything in it."""
    application().ask("POST", "/chat", json={"message": said, "session_id": "s", "stream": False})
    query = {"q": looked_for} | ({} if session is None else {"session_id": session})
    found = application().ask("GET", "/search", params=query)
    assert found.status_code in (200, 422), found.text
    if found.status_code == 200:
        for hit in found.json()["results"]:
            for match in hit["matches"]:
                assert 0 <= match["start"] <= match["end"] <= len(hit["snippet"])


@given(odd_texts | st.from_regex(r"[A-Za-z0-9_-]{1,43}\.[0-9]{1,18}", fullmatch=True))
def test_a_cursor_is_read_as_it_was_written(text: str) -> None:
    try:
        cursor = parse_cursor(text)
    except ChatError as error:
        assert error.code == "invalid_cursor"
    else:
        assert parse_cursor(str(cursor)) == cursor
        assert cursor.seq < 2**63


_TRACER = OpenTelemetryTracer(TracerProvider().get_tracer("fuzz"), {})

trace_headers = st.dictionaries(
    st.sampled_from(["traceparent", "tracestate"]),
    st.lists(
        odd_texts | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", fullmatch=True)
        | st.text(alphabet="a=,b@ 1", max_size=200),
        max_size=3,
    ),
)  # fmt: skip


@given(trace_headers)
def test_a_trace_is_carried_or_ignored(headers: dict[str, list[str]]) -> None:
    carried = _TRACER.carried(lambda name: headers.get(name, []))
    if carried is not None:
        again = json.loads(carried)
        context = TraceContextTextMapPropagator().extract(again)
        written_again: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(written_again, context)
        assert written_again["traceparent"] == again["traceparent"]
        assert len(carried) < 4_000
