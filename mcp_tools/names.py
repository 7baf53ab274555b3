"""The names under which the model gets to know the tools of MCP servers: ``server__tool``.

They depend on nothing but the two names, so that a tool is the same one in every process and after every restart. No
prefix has two underscores in it or one at its end: what comes before the first ``__`` is always the server.
"""

import re
from hashlib import sha256

LONGEST_NAME = 64
"""What OpenAI takes as a function's name: ``[a-zA-Z0-9_-]{1,64}``."""

LONGEST_PREFIX = 30
"""So that some of the tool's own name is left."""

_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]")
_MARK = 8


def prefix_of(server: str) -> str:
    """The server's part of the names."""
    fitting = re.sub(r"__+", "_", _FORBIDDEN.sub("_", server)).strip("_")
    return fitting if 0 < len(fitting) <= LONGEST_PREFIX else _marked(fitting, server, LONGEST_PREFIX)


def name_of(prefix: str, tool: str) -> str:
    """The tool's whole name."""
    fitting, room = _FORBIDDEN.sub("_", tool), LONGEST_NAME - len(prefix) - 2
    fits = tool == fitting and 0 < len(tool) <= room
    return f"{prefix}__{tool if fits else _marked(fitting, tool, room)}"


def _marked(fitting: str, original: str, room: int) -> str:
    """What tells a name that does not fit from others that would become the same."""
    mark = sha256(original.encode(errors="replace")).hexdigest()[:_MARK]
    return f"{fitting[: room - _MARK - 1].rstrip('_')}_{mark}".lstrip("_")
