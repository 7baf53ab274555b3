"""What a server lists, as the model is told of it: bounded, and such that no provider refuses the whole request."""

from collections.abc import Mapping

from mcp_types import Tool as Listed
from pydantic_core import to_json

from chat.terms import ToolSpec

LONGEST_DESCRIPTION = 1024
"""Characters. OpenAI refuses a request in which one is longer."""

LARGEST_SCHEMA = 32_768
"""Bytes. A tool with a larger one is left out: every request to the model would carry it."""

REFUSED = ("allOf", "anyOf", "enum", "not", "oneOf")
"""Keywords that OpenAI and Anthropic refuse at the top of a schema. The server checks what it is called with anyway."""


def spec_of(name: str, tool: Listed) -> ToolSpec | None:
    """The tool under its name here; None where its schema is too large, or not one of an object."""
    schema = tool.input_schema
    if schema.get("type") != "object" or len(to_json(schema)) > LARGEST_SCHEMA:
        return None
    return ToolSpec(name, _cut(tool.description or tool.title or tool.name), _accepted(schema))


def _accepted(schema: Mapping[str, object]) -> dict[str, object]:
    """With ``properties``, which OpenAI misses where a tool takes no arguments."""
    return {"properties": {}} | {key: value for key, value in schema.items() if key not in REFUSED}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_DESCRIPTION else text[: LONGEST_DESCRIPTION - 1] + "…"
