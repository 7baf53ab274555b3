"""What the model is told of a server's tools, and of what they answer."""

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
)

from mcp_tools.results import text_of
from mcp_tools.specs import LARGEST_SCHEMA, LONGEST_DESCRIPTION, spec_of

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/A"}},
    "required": ["a"],
    "$defs": {"A": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    "additionalProperties": False,
}


def test_schema_comes_through_as_it_is() -> None:
    spec = spec_of("s__t", Tool(name="t", description="Does it.", input_schema=SCHEMA))
    assert spec is not None
    assert (spec.name, spec.description, spec.parameters) == ("s__t", "Does it.", SCHEMA)


def test_what_providers_refuse_is_taken_out() -> None:
    top = {"type": "object", "oneOf": [], "anyOf": [], "allOf": [], "not": {}, "enum": []}
    spec = spec_of("s__t", Tool(name="t", input_schema=top))
    assert spec is not None
    assert spec.parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    "schema", [{}, {"type": "string"}, {"type": ["object"]}, {"type": "object", "description": "x" * LARGEST_SCHEMA}]
)
def test_tool_without_a_schema_of_an_object_or_with_a_huge_one_is_left_out(schema: dict[str, object]) -> None:
    assert spec_of("s__t", Tool(name="t", input_schema=schema)) is None


@pytest.mark.parametrize(
    ("title", "description", "told"),
    [
        ("Title", "x" * LONGEST_DESCRIPTION, "x" * LONGEST_DESCRIPTION),
        ("Title", "x" * (LONGEST_DESCRIPTION + 1), "x" * (LONGEST_DESCRIPTION - 1) + "…"),
        ("Title", None, "Title"),
        (None, "", "t"),
    ],
)
def test_description_is_there_and_not_too_long(title: str | None, description: str | None, told: str) -> None:
    spec = spec_of("s__t", Tool(name="t", title=title, description=description, input_schema={"type": "object"}))
    assert spec is not None
    assert spec.description == told


@pytest.mark.parametrize(
    ("content", "structured", "text"),
    [
        ([TextContent(text="One"), TextContent(text="Two")], None, "One\nTwo"),
        ([TextContent(text='{"a": 1}')], {"a": 1}, '{"a": 1}'),
        ([], {"a": [1, "ü"]}, '{"a":[1,"ü"]}'),
        ([], None, ""),
        ([ImageContent(data="MTIzNDU=", mime_type="image/png")], None, "[image, image/png, 5 bytes, not shown]"),
        ([AudioContent(data="MTIz", mime_type="audio/wav")], None, "[audio, audio/wav, 3 bytes, not shown]"),
        ([ResourceLink(name="n", uri="file:///a", description="An A.")], None, "[resource: n file:///a] An A."),
        (
            [EmbeddedResource(resource=TextResourceContents(uri="file:///a", text="Words"))],
            None,
            "[resource: file:///a]\nWords",
        ),
        (
            [EmbeddedResource(resource=BlobResourceContents(uri="file:///a", blob="MTIz"))],
            None,
            "[resource: file:///a, binary, 3 bytes, not shown]",
        ),
    ],
)
def test_answer_becomes_text(content: list[ContentBlock], structured: object, text: str) -> None:
    assert text_of(CallToolResult(content=content, structured_content=structured)) == text
