"""JSON schemas (2020-12, as OpenAPI 3.1 has them) of the types that requests are read into and answers are made of."""

from collections.abc import Iterable
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import core_schema

Json: TypeAlias = dict[str, Any]


class _Plain(GenerateJsonSchema):
    """Without titles that repeat the members' names, and without ``default: null``.

    A client that was generated from it would send that null, and ``"parent_id": null`` means something.
    """

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Json:
        described = super().default_schema(schema)
        if "default" in described and described["default"] is None:
            del described["default"]
        return described


def schemas_of(kinds: Iterable[type]) -> dict[str, Json]:
    """The schemas of these types, and of all that they are made of, by name."""
    mode: JsonSchemaMode = "validation"
    _, found = TypeAdapter.json_schemas(
        [(kind, mode, TypeAdapter(kind)) for kind in kinds],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Plain,
    )
    return dict(found["$defs"])


def ref(section: str, name: str) -> Json:
    return {"$ref": f"#/components/{section}/{name}"}
