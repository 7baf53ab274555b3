"""The parameters and headers that many operations share."""

from collections.abc import Mapping

from pydantic import TypeAdapter

from chat.runs import CURSOR
from handlers.bodies import Id, Key
from handlers.openapi.schemas import Json

_STRING: Json = {"type": "string"}
_ID: Json = TypeAdapter(Id).json_schema()
_CURSOR: Json = {"type": "string", "pattern": f"^({CURSOR.pattern})?$"}
_KEY: Json = TypeAdapter(Key).json_schema()

# Without examples: Swagger UI would send them along.
_REQUEST = {
    "Idempotency-Key": (
        "The same request with the same key attaches to the run that exists. Goes before `request_id`.",
        _KEY,
    ),
    "Last-Event-ID": (
        "The last event that the client has seen: attaches to its run, and the stream goes on right behind it.",
        _CURSOR,
    ),
    "X-Session-Id": ("The conversation; an unknown id creates it.", _ID),
    "traceparent": (
        "The span that asks, as in [W3C Trace Context](https://www.w3.org/TR/trace-context/): the run's belong to it.",
        _STRING,
    ),
    "tracestate": ("What goes along with `traceparent`.", _STRING),
    "Prefer": ("`respond-async`: do not stream, answer 202 as soon as the message is stored.", _STRING),
}
_QUERY = {
    "chaos": "For development: what goes wrong with the stream, by commas. `drop@17`, `kill@17` and "
    "`stall@17:3s` strike behind the frame whose id ends with 17; `dup` sends every frame twice.",
}
_PATH = {
    "run_id": "The run.",
    "call_id": "The call, as `tool.approval` names it.",
    "session_id": "The session.",
    "user_id": "The user.",
    "document_id": "The document.",
    "model": "The model.",
    "response_id": "The response.",
}
_RESPONSE = {
    "X-Request-Id": ("The request's id in the service's log: the one it came with, or a new one.", _ID),
    "X-Run-Id": ("The run that answers.", _STRING),
    "X-Session-Id": ("The session that it belongs to.", _STRING),
    "X-User-Id": ("Whose session that is.", _STRING),
    "Location": ("Where what was made, or is meant, is found.", _STRING | {"format": "uri-reference"}),
    "Idempotency-Replayed": (
        "There when the request led to what existed: the run, or the document.",
        _STRING | {"const": "true"},
    ),
    "Preference-Applied": ("What was followed of `Prefer`.", _STRING | {"const": "respond-async"}),
    "WWW-Authenticate": ("That a key or token is wanted, as a bearer.", _STRING),
    "Retry-After": ("Seconds to wait, where they are known.", {"type": "integer", "minimum": 1}),
}


def parameters() -> Mapping[str, Json]:
    """Request headers, path parameters and those of every stream's query, by name."""
    in_headers = {
        name: {"name": name, "in": "header", "description": description, "schema": schema}
        for name, (description, schema) in _REQUEST.items()
    }
    in_path = {
        name: {"name": name, "in": "path", "required": True, "description": description, "schema": _STRING}
        for name, description in _PATH.items()
    }
    in_query = {
        name: {"name": name, "in": "query", "description": description, "schema": _STRING}
        for name, description in _QUERY.items()
    }
    return in_headers | in_path | in_query


def headers() -> Mapping[str, Json]:
    """Response headers, by name."""
    return {name: {"description": description, "schema": schema} for name, (description, schema) in _RESPONSE.items()}
