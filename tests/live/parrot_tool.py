"""A tool that says what it is told to, and one that fails with it: where a stranger's page or mail would be read."""

from chat.tools import ToolError


def parrot(text: str) -> str:
    """Say it again."""
    return text


def complain(text: str) -> str:
    """Fail with it."""
    raise ToolError(text)


TOOLS = [parrot, complain]
