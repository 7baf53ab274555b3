"""What an MCP server writes on its stdout: messages are passed on, all else is left out, and nothing raises."""

import asyncio
import json
from typing import Any, cast

import anyio
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.message import SessionMessage
from mcp_types import CallToolResult, Tool
from pydantic_core import from_json

from mcp_tools import stdio
from mcp_tools.names import LONGEST_NAME, name_of, prefix_of
from mcp_tools.results import text_of
from mcp_tools.specs import LARGEST_SCHEMA, LONGEST_DESCRIPTION, spec_of
from tests.fuzz.strategies import json_values, nearly, odd_texts, written

messages = st.sampled_from(
    [
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": []}},
        {"jsonrpc": "2.0", "id": "a", "error": {"code": -32000, "message": "m", "data": [1]}},
        {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"a": 1}},
        {"jsonrpc": "2.0", "id": 2, "method": "roots/list"},
    ]
)


class _Process:
    def __init__(self, said: bytes) -> None:
        self.stdout = asyncio.StreamReader(limit=stdio.LONGEST_MESSAGE)
        self.stdout.feed_data(said)
        self.stdout.feed_eof()


@given(st.lists(nearly(messages).map(written) | st.binary(max_size=30), max_size=5).map(b"\n".join), st.booleans())
def test_lines_are_messages_or_left_out(said: bytes, ended: bool) -> None:
    async def read() -> list[Any]:
        heard, hearing = anyio.create_memory_object_stream[SessionMessage | Exception](100)
        lost = asyncio.Event()
        async with hearing:
            process = cast(Any, _Process(said + (b"\n" if ended else b"")))
            await stdio._read("server", process, heard, lost.set)
            assert lost.is_set()
            return [message async for message in hearing]

    for message in asyncio.run(read()):
        assert isinstance(message, SessionMessage)
        json.loads(message.message.model_dump_json(by_alias=True))


tools = st.just(
    {"name": "f", "title": "F", "description": "d",
     "inputSchema": {"type": "object", "properties": {"a": {"enum": [1]}}, "anyOf": [{}]}}
)  # fmt: skip


@given(nearly(tools), odd_texts)
def test_a_tool_is_told_within_bounds_or_left_out(listed: Any, server: str) -> None:
    try:
        tool = Tool.model_validate(from_json(written(listed)))  # as the transports read it
    except ValueError:
        return
    name = name_of(prefix_of(server), tool.name)
    assert 0 < len(name) <= LONGEST_NAME
    spec = spec_of(name, tool)
    if spec is not None:
        assert len(spec.description) <= LONGEST_DESCRIPTION
        assert len(json.dumps(spec.parameters)) <= 6 * LARGEST_SCHEMA


results = st.just(
    {"content": [{"type": "text", "text": "t"}, {"type": "image", "data": "AA==", "mimeType": "image/png"},
                 {"type": "resource_link", "uri": "a:b", "name": "n"},
                 {"type": "resource", "resource": {"uri": "a:b", "blob": "AA==", "mimeType": None}}],
     "structuredContent": {"a": 1}, "isError": False}
)  # fmt: skip


@given(nearly(results) | json_values)
def test_a_result_is_text(result: Any) -> None:
    try:
        found = CallToolResult.model_validate(from_json(written(result)))
    except ValueError:
        return
    text_of(found).encode("utf-8", "surrogatepass")
