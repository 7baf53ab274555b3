"""Puts the description together: the routes say what there is, the operations say what it means."""

import inspect
from collections.abc import Iterable
from typing import Any

from starlette.routing import BaseRoute, Route

from chat.events import name_of
from handlers.bodies import Body
from handlers.chaos import PARAMETER as CHAOS
from handlers.doctor import DoctorEventView, DoctorReportView
from handlers.errors import STATUS
from handlers.identity import AdminRoute
from handlers.limits import FREE
from handlers.middleware import is_public
from handlers.openapi.headers import headers, parameters
from handlers.openapi.operation import STORE, Answer, Operation
from handlers.openapi.operations import OPERATIONS
from handlers.openapi.problems import examples, responses_of, table
from handlers.openapi.samples import EVENTS, EXAMPLES, STREAMS
from handlers.openapi.schemas import Json, ref, schemas_of
from handlers.origins import does_something
from handlers.v1.views import ErrorView
from handlers.views import FailureView, ProblemView, StartedView

_ABOUT = """\
Chat that streams its answers as Server-Sent Events. **Nothing is shown that is not stored**: every piece of an answer
is committed before it is sent, so that a client that lost its connection, or its page, goes on at the exact token.

## Streams

`format=text`, the default: the answer's text in `data:` lines, a line for each of its lines, and `data: [DONE]` at the
end. A run that ends in another way says so with a named event and JSON. `format=events`: every event by its name, with
JSON on one line.

{events}

In both formats `stream.error` with a `FailureView` says that the log cannot be written or read just now. It has no id
and ends the stream, not the run: come back with the last id.

Every stream begins at once with an id, before the model says anything, and every event has the next one:
`{{run_id}}.{{seq}}`, where `seq` counts from 1 without gaps. `Last-Event-ID` with the last one that was seen, as
EventSource sends it by itself, continues right behind it. Exactly one of the `run.` events ends a run; a stream that
ends without it goes on elsewhere: reconnect with the same id, after `retry:` milliseconds. Lines that begin with a
colon keep the connection open.

## Never twice

The same request with the same `Idempotency-Key` (or `request_id`, where headers cannot be sent) attaches to the run
that exists and streams it, however often it is sent; another request with that key is refused. A request with the
`Last-Event-ID` of its run attaches too. A session answers one message at a time: see `on_busy`.

## Errors

`application/problem+json` (RFC 9457), see `ProblemView`. Programs go by its `code`; each operation says which it can
have. Under `/v1` errors look as OpenAI's: see `ErrorView`. Every response has an `X-Request-Id`. HEAD is answered
wherever GET is, and starts nothing.
"""

_TAGS = {
    "Chat": "Say something, and see it answered.",
    "Runs": "One durable generation of an answer: look at it, follow it, stop it, answer once more.",
    "Sessions": "Conversations and their messages.",
    "Documents": "What answers are taken from.",
    "Tools": "What the model may call, and what came of it.",
    "OpenAI": "The same for clients of OpenAI's API, as they are: point their base URL at `/v1`.",
    "AG-UI": "The same for AG-UI's clients.",
    "ChatKit": "The same for ChatKit's widget.",
    "Users": "All that is one user's.",
    "Service": "The service itself.",
}

_BEARER = """\
With `AUTH=keys` a key of a server in front, which may name the user that it speaks for, in `X-User-Id` or `user_id`;
with `AUTH=jwt` a token whose `sub` is the user. With `AUTH=none` nobody is asked.\
"""

# What streams carry and no operation names.
_ON_STREAMS = (StartedView, FailureView, DoctorReportView, DoctorEventView, *[type(event) for event in EVENTS])


def describe(routes: Iterable[BaseRoute], title: str, version: str, *, chaos: bool = False) -> Json:
    """The whole document. ``chaos``: streams break to order.

    Raises:
        KeyError: a route of which no operation says what it is for.
    """
    paths: dict[str, Json] = {}
    for route in routes:
        if isinstance(route, Route) and route.include_in_schema:
            for method in sorted((route.methods or set()) - {"HEAD"}):
                described = _operation(route, OPERATIONS[f"{method} {route.path_format}"], chaos=chaos)
                paths.setdefault(route.path_format, {})[method.lower()] = described
    return {
        "openapi": "3.1.1",
        "info": {
            "title": title,
            "version": version,
            "summary": "A chat backend you run yourself.",
            "description": _ABOUT.format(events=_events_table()),
        },
        "servers": [{"url": "./", "description": "Where this description comes from."}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": _components(),
    }


def _events_table() -> str:
    kinds = {"run.started": StartedView} | {name_of(event): type(event) for event in EVENTS}
    rows = [f"| `{name}` | `{kind.__name__}` | {_first_line(kind)} |" for name, kind in kinds.items()]
    return "\n".join(["| event | data | |", "|---|---|---|", *rows])


def _components() -> Json:
    operations = OPERATIONS.values()
    views = {answer.view for operation in operations for answer in operation.answers.values()} - {None, dict}
    bodies = {body for operation in operations for body in (operation.body, operation.or_body, operation.form)} - {None}
    schemas = schemas_of([kind for kind in [*views, *bodies, *_ON_STREAMS, ProblemView, ErrorView] if kind is not None])
    # Of no type: to some programs this is the whole text, to others each event, and OpenAPI 3.1 leaves it open.
    schemas["EventStream"] = {"description": "Server-Sent Events; see Streams, at the top."}
    schemas[ProblemView.__name__]["properties"]["code"] |= {"enum": list(STATUS), "description": table()}
    return {
        "schemas": dict(sorted(schemas.items())),
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _BEARER}},
        "parameters": parameters(),
        "headers": headers(),
        "examples": {name: {"summary": summary, "value": frames} for name, (summary, frames) in STREAMS.items()}
        | examples(),
    }


def _operation(route: Route, operation: Operation, *, chaos: bool) -> Json:
    breaks = chaos and any(answer.streams for answer in operation.answers.values())
    taken = _shared(route.param_convertors) + _query(operation.query) + _shared(operation.headers)
    taken += _shared([CHAOS] if breaks else [])
    refused: tuple[str, ...] = ("invalid_request",) if breaks else ()
    refused += () if route.path in FREE and is_public(route.path) else ("rate_limited",)
    refused += ("foreign_page",) if any(does_something(method, route.path) for method in route.methods or ()) else ()
    if not is_public(route.path):
        refused += ("unauthorized", "issuer_unavailable", *STORE)
        refused += ("forbidden",) if isinstance(route, AdminRoute) else ()
        refused += ("user_mismatch",) if _names_a_user(operation) else ()
    answers = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    described: Json = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": route.name,
        "responses": answers | responses_of((*operation.raises, *refused), openai=operation.openai),
    }
    if is_public(route.path):
        described["security"] = []
    if operation.description:
        described["description"] = operation.description
    if taken:
        described["parameters"] = taken
    if operation.body is not None:
        described["requestBody"] = _body(*filter(None, (operation.body, operation.or_body)))
        if operation.form is not None:
            form = {"schema": ref("schemas", operation.form.__name__)}
            described["requestBody"]["content"] |= {"multipart/form-data": form}
    return described


def _names_a_user(operation: Operation) -> bool:
    kinds = filter(None, (operation.query, operation.body, operation.or_body))
    return any(not {"user_id", "user"}.isdisjoint(kind.model_fields) for kind in kinds)


def _shared(names: Iterable[str]) -> list[Json]:
    return [ref("parameters", name) for name in names]


def _query(kind: type[Body] | None) -> list[Json]:
    if kind is None:
        return []
    schema = schemas_of([kind])[kind.__name__]
    required = schema.get("required", [])
    members = sorted(schema["properties"].items(), key=lambda member: member[0] not in required)
    return [_parameter(name, member, required=name in required) for name, member in members]


def _parameter(name: str, member: Json, *, required: bool) -> Json:
    """A member as a query parameter. There is no null in a query string."""
    choices = [choice for choice in member.pop("anyOf", []) if choice != {"type": "null"}]
    parameter: Json = {"name": name, "in": "query", "required": required}
    if "description" in member:
        parameter["description"] = member.pop("description")
    return parameter | {"schema": choices[0] | member if choices else member}


def _body(*kinds: type[Body]) -> Json:
    required = all(any(member.is_required() for member in kind.model_fields.values()) for kind in kinds)
    schemas = [ref("schemas", kind.__name__) for kind in kinds]
    content: Json = {"schema": {"anyOf": schemas} if len(kinds) > 1 else schemas[0]}
    if len(kinds) > 1:
        content["examples"] = {kind.__name__: {"value": EXAMPLES[kind]} for kind in kinds}
    else:
        content["example"] = EXAMPLES[kinds[0]]
    return {"required": required, "content": {"application/json": content}}


def _answer(answer: Answer) -> Json:
    content: dict[str, Any] = {}
    if answer.streams:
        content["text/event-stream"] = {
            "schema": ref("schemas", "EventStream"),
            "examples": {name: ref("examples", name) for name in answer.streams},
        }
    if answer.text:
        content[answer.media] = {"schema": {"type": "string"}, "example": answer.text}
    if answer.view is dict:
        content["application/json"] = {"schema": {"type": "object"}}
    elif answer.view is not None:
        content["application/json"] = {"schema": ref("schemas", answer.view.__name__), "example": EXAMPLES[answer.view]}
    described: Json = {
        "description": answer.description,
        "headers": {name: ref("headers", name) for name in ("X-Request-Id", *answer.headers)},
    }
    return described | ({"content": content} if content else {})


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]
