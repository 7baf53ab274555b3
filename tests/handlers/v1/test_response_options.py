from typing import Any

import pytest

from handlers.v1.response_bodies import ResponseBody
from handlers.v1.response_options import options_of

SCHEMA = {"type": "json_schema", "name": "city", "schema": {"type": "object"}, "strict": True}


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {}),
        ({"temperature": 0, "top_p": 1, "parallel_tool_calls": False}, None),
        ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
        ({"tool_choice": "required"}, None),
        (
            {"tool_choice": {"type": "function", "name": "look"}},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {}}, {}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": SCHEMA}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "city", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
    ],
)
def test_options_are_called_what_chat_completions_call_them(
    given: dict[str, Any], asked: dict[str, Any] | None
) -> None:
    body = ResponseBody.model_validate({"input": "Hi", **given})
    assert options_of(body) == (given if asked is None else asked)
