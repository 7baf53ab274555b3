"""An MCP server made with the official package: ``python -m tests.mcp_tools.server FOLDER [PORT]``, on stdio or HTTP.

What its tools do is written down in the folder.
"""

import os
import sys
from pathlib import Path

import anyio
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

folder = Path(sys.argv[1])
server = MCPServer("tests")


def note(text: str) -> None:
    with (folder / "notes").open("a") as notes:
        notes.write(f"{text}\n")


@server.tool()
def greet(name: str = "you") -> str:
    """Greet somebody."""
    note(f"greet {name}")
    sys.stderr.write(f"canary-of-the-call {name}\n")
    sys.stderr.flush()
    return f"Hello {name}"


@server.tool()
def measure() -> dict[str, int]:
    """Measure something."""
    return {"width": 3}


@server.tool()
def draw() -> list[str | Image]:
    """Draw something."""
    return ["Here it is:", Image(data=b"12345", format="png")]


@server.tool()
def refuse() -> str:
    """Refuse."""
    raise ToolError("Not today.")


@server.tool()
def variables() -> str:
    """What is in the environment."""
    return " ".join(sorted(os.environ))


@server.tool()
async def hold() -> None:
    """Take for ever."""
    note("held")
    try:
        await anyio.sleep_forever()
    finally:
        note("let go")


@server.tool()
def die() -> str:
    """End in the middle."""
    note("died")
    os._exit(1)


@server.tool()
async def learn(context: Context) -> str:
    """Get another tool."""

    def sing() -> str:
        """Sing."""
        return "La"

    server.add_tool(sing)
    await context.notify_tools_changed()
    await context.session.send_tool_list_changed()
    return "Now I can sing."


@server.tool()
def forget() -> str:
    """Forget all sessions, as a restart behind a proxy does."""
    server.session_manager._server_instances.clear()
    return "Who are you?"


if __name__ == "__main__":
    sys.stderr.write("canary-of-stderr\n")
    note(f"pid {os.getpid()}")
    if len(sys.argv) > 2:
        server.run("streamable-http", port=int(sys.argv[2]))
    else:
        server.run()
