import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from chat.events import Event, name_of, payload_of
from handlers import ROUTES
from handlers.bodies import Body
from handlers.errors import STATUS, TITLES, openai_status
from handlers.openapi.document import describe
from handlers.openapi.operations import OPERATIONS
from handlers.openapi.problems import MEANING
from handlers.openapi.samples import EVENTS, EXAMPLES, STREAMS
from server import create_app
from settings import Settings
from tests.described import Description
from tests.live.service import Frame, parse_frame

PAGES = {"/docs", "/playground", "/static/{name}"}


@pytest.fixture(scope="module")
def description() -> Description:
    return Description(describe(ROUTES, "parley", "1.2.3"))


def operations(description: Description) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in description.document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def examples_of(description: Description, media: dict[str, Any]) -> list[object]:
    """The examples as they go over the wire."""
    found = [description.resolve(example)["value"] for example in media.get("examples", {}).values()]
    found += [media["example"]] if "example" in media else []
    return [json.loads(json.dumps(example)) for example in found]


def test_every_route_is_described_and_nothing_else(description: Description) -> None:
    routes = {
        f"{method} {route.path_format}"
        for route in ROUTES
        if isinstance(route, Route) and route.path not in PAGES
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {f"{method.upper()} {path}" for path, method, _ in operations(description)} == routes
    assert set(OPERATIONS) == routes


def test_only_a_service_that_breaks_streams_to_order_says_how(description: Description) -> None:
    breaking = Description(describe(ROUTES, "parley", "1.2.3", chaos=True))
    named = {"$ref": "#/components/parameters/chaos"}
    for path, method, operation in operations(breaking):
        streams = "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
        assert (named in operation.get("parameters", [])) is streams
        assert named not in description.document["paths"][path][method].get("parameters", [])


def test_document_is_valid_openapi(description: Description) -> None:
    errors = OpenAPIV31SpecValidator(description.document).iter_errors()
    assert [str(error) for error in errors] == []


def test_examples_conform_to_their_schemas(description: Description) -> None:
    checked = 0
    for path, method, operation in operations(description):
        places: list[tuple[tuple[str, ...], dict[str, Any]]] = [(("requestBody",), operation.get("requestBody", {}))]
        places += [(("responses", status), response) for status, response in operation["responses"].items()]
        for place, described in places:
            for media_type, media in described.get("content", {}).items():
                for example in examples_of(description, media):
                    description.check(example, "paths", path, method, *place, "content", media_type, "schema")
                    checked += 1
    assert checked > 200


def test_examples_of_bodies_are_what_the_handlers_take() -> None:
    for kind, example in EXAMPLES.items():
        if issubclass(kind, Body):
            assert kind.model_validate(example).model_fields_set


def test_every_error_code_appears_with_its_status(description: Description) -> None:
    schemas = description.document["components"]["schemas"]
    assert schemas["ProblemView"]["properties"]["code"]["enum"] == list(STATUS)
    assert list(MEANING) == list(STATUS)
    assert set(TITLES) == set(STATUS.values())
    raised: set[str] = set()
    for _, _, operation in operations(description):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                if "application/json" in response["content"]:  # as OpenAI says it
                    members = response["content"]["application/json"]["schema"]["allOf"][1]["properties"]
                    codes = members["error"]["properties"]["code"]["enum"]
                    ours = ["unauthorized" if code == "invalid_api_key" else code for code in codes]
                    assert {openai_status(STATUS[code]) for code in ours} == {int(status)}
                    continue
                examples = response["content"]["application/problem+json"]["examples"]
                assert {STATUS[code] for code in examples} == {int(status)}
                raised |= set(examples)
    assert set(STATUS) - raised == {"method_not_allowed"}  # only where no operation is


def test_refusals_say_with_which_headers_they_come(description: Description) -> None:
    wanted = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}
    seen = set()
    for _, _, operation in operations(description):
        for status, response in operation["responses"].items():
            assert ("WWW-Authenticate" in response["headers"]) is (status == "401")
            if status in wanted:
                described = description.resolve(response["headers"][wanted[status]])
                assert described["schema"]["type"] in ("string", "integer")
                seen.add(status)
    assert seen == set(wanted)


def test_null_is_no_default(description: Description) -> None:
    parent = description.document["components"]["schemas"]["ChatBody"]["properties"]["parent_id"]
    assert "default" not in parent
    assert {"type": "null"} in parent["anyOf"]


def test_query_parameters_are_never_null(description: Description) -> None:
    taken = description.document["paths"]["/chat"]["get"]["parameters"]
    parameters = {parameter["name"]: parameter for parameter in map(description.resolve, taken)}
    assert parameters["message"]["required"] is True
    assert parameters["parent_id"]["schema"] == {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"}
    assert parameters["stream"]["schema"] == {"type": "boolean", "default": True}


def test_every_event_has_a_schema_and_a_place_in_the_text(description: Description) -> None:
    kinds = {kind for member in get_args(Event) for kind in get_args(member) or [member]}
    assert {type(event) for event in EVENTS} == kinds
    for event in EVENTS:
        description.check(payload_of(event), "components", "schemas", type(event).__name__)
        assert f"| `{name_of(event)}` | `{type(event).__name__}` |" in description.document["info"]["description"]


def test_example_streams_carry_what_the_schemas_say(description: Description) -> None:
    schemas = {name_of(event): type(event).__name__ for event in EVENTS}
    schemas |= {"run.started": "StartedView", "stream.error": "FailureView"}
    schemas |= {"doctor.report": "DoctorReportView", "doctor.event": "DoctorEventView", "doctor.end": "DoctorEventView"}
    for name, stream in STREAMS.items():
        *records, rest = stream.frames.split("\n\n")
        assert rest == ""
        frames = [frame for frame in map(parse_frame, records) if frame is not None]
        assert [frame.seq for frame in frames if frame.id is not None][:2] == [0, 1]
        for frame in frames:
            if frame.event is not None and frame.event.startswith("response."):
                told = json.loads(frame.data or "").get("response")
                if told is not None:
                    description.check(told, "components", "schemas", "ResponseView")
            elif frame.event is not None and frame.data is not None:
                description.check(json.loads(frame.data), "components", "schemas", schemas[frame.event])
        assert (Frame(frames[-1].id, data="[DONE]") in frames) == (name in ("text", "parts", "chunks"))


async def test_document_is_made_when_it_is_asked_for_and_once(tmp_path: Path) -> None:
    app = create_app(Settings(_env_file=None, database_url=f"sqlite:///{tmp_path}/chat.db", service_name="acme"))
    assert not hasattr(app.state, "openapi")
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://parley")
    async with client:
        first = await client.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
        made = app.state.openapi
        again = await client.get("/openapi.json")
    assert first.headers["content-type"] == "application/json"
    assert first.headers["content-encoding"] == "gzip"
    assert app.state.openapi is made
    assert first.json() == again.json()
    assert first.json()["info"]["title"] == "acme"
