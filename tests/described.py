"""Holds values and responses against the API's description."""

import copy
import re
from typing import Any

import httpx
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

_DOCUMENT = "urn:openapi"

_SOMETIMES = {"Idempotency-Replayed", "Retry-After"}
"""Response headers that are described and need not be there."""

_OF_RUNS = {"Location", "X-Run-Id", "X-Session-Id", "X-User-Id"}
"""The same where a route streams runs and also answers what is no run."""


class Description:
    """Stricter than its schemas: what they do not name may not be there."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[tuple[str, str, int]] = set()
        closed = copy.deepcopy(document)
        for schema in closed["components"]["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        self._registry: Registry[Any] = Registry().with_resource(_DOCUMENT, DRAFT202012.create_resource(closed))

    def check(self, value: object, *steps: str) -> None:
        """The value conforms to the schema at this place of the document."""
        place = "/".join([step.replace("~", "~0").replace("/", "~1") for step in steps])
        validator = OAS31Validator(
            {"$ref": f"{_DOCUMENT}#/{place}"}, registry=self._registry, format_checker=oas31_format_checker
        )
        problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        assert not problems, f"{place}: {problems}"

    def check_response(self, response: httpx.Response) -> None:
        """Status, media type, body and headers are described for the operation that the response answers."""
        method, path = response.request.method, self.path(response.request.url.path)
        operation = self.document["paths"][path][method.lower()]
        status = str(response.status_code)
        assert status in operation["responses"], f"{method} {path}: {status} {response.text}"
        described = operation["responses"][status]
        self.seen.add((method, path, response.status_code))
        headers, there = set(described["headers"]), response.headers
        media_type = there.get("content-type", "").partition(";")[0]
        sometimes = _SOMETIMES | _OF_RUNS if (path, media_type) == ("/chatkit", "application/json") else _SOMETIMES
        assert {name for name in headers if name not in there} <= sometimes
        assert {name for name in self.document["components"]["headers"] if name in there} <= headers
        if not media_type:
            assert "content" not in described
            assert not response.content
            return
        assert media_type in described["content"], f"{method} {path}: {media_type}"
        is_text = media_type.startswith("text/") or media_type == "application/jsonl"
        value = response.text if is_text else response.json()
        self.check(value, "paths", path, method.lower(), "responses", status, "content", media_type, "schema")

    def path(self, actual: str) -> str:
        """The described path that matches: one without parameters before one with."""
        paths: list[str] = list(self.document["paths"])
        matching = [path for path in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), actual)]
        return min(matching, key=lambda path: path.count("{"))

    def resolve(self, described: dict[str, Any]) -> dict[str, Any]:
        """The component, if this is only its place."""
        reference = described.get("$ref")
        if reference is None:
            return described
        found: Any = self.document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        return dict(found)
