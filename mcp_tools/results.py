"""What a tool of an MCP server has answered, as text for the model."""

from typing import assert_never

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)
from pydantic_core import to_json


def text_of(result: CallToolResult) -> str:
    """The content, a line between its parts; what is no text is named.

    Structured content comes where there is nothing else: servers repeat it as text.
    https://modelcontextprotocol.io/specification/2025-11-25/server/tools#structured-content
    """
    if not result.content and result.structured_content is not None:
        return to_json(result.structured_content).decode()
    return "\n".join(map(_told, result.content))


def _told(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return f"[{block.type}, {block.mime_type}, {_size(block.data)} bytes, not shown]"
        case ResourceLink():
            return " ".join(filter(None, ["[resource:", block.title or block.name, f"{block.uri}]", block.description]))
        case EmbeddedResource():
            content = block.resource
            if isinstance(content, BlobResourceContents):
                kind = content.mime_type or "binary"
                return f"[resource: {content.uri}, {kind}, {_size(content.blob)} bytes, not shown]"
            return f"[resource: {content.uri}]\n{content.text}"
        case _:
            assert_never(block)


def _size(base64: str) -> int:
    return len(base64.rstrip("=")) * 3 // 4
