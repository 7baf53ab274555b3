"""A tool that asks before it does anything."""

from chat.functions import tool_of
from chat.tools import ToolContext


async def order(context: ToolContext, article: str) -> str:
    """Order something."""
    return await context.save("order", {"article": article})


TOOLS = [tool_of(order, approval=True)]
