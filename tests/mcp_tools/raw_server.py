"""A server on stdio that misbehaves: ``python -m tests.mcp_tools.raw_server FOLDER KIND``. Made without the package."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

folder, kind = Path(sys.argv[1]), sys.argv[2]

SCHEMA = {"type": "object"}
CACHEABLE = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
"""What the newer protocol wants of some results."""


def note(text: str) -> None:
    with (folder / "notes").open("a") as notes:
        notes.write(f"{text}\n")


def tool(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "inputSchema": SCHEMA} | more


def many() -> dict[str, object]:
    """Far more than a model takes."""
    return {"tools": [tool(f"tool_{number}") for number in range(5_000)]}


def odd() -> dict[str, object]:
    deep: dict[str, object] = {"type": "string"}
    for _ in range(40):
        deep = {"type": "object", "properties": {"x": deep}}
    return {
        "tools": [
            tool("long", description="x" * 5000),
            tool("large", inputSchema={**SCHEMA, "description": "x" * 40_000}),
            tool("either", inputSchema={**SCHEMA, "oneOf": [{"required": ["a"]}]}),
            tool("a b"), tool("a b"), tool("a/b"), tool(""), tool("é" * 100),
            tool("deep", inputSchema=deep),
            tool("plain"),
        ]
    }  # fmt: skip


pages: Iterator[int] = iter(range(10**9))


def endless() -> dict[str, object]:
    number = next(pages)
    return {"tools": [tool(f"tool_{number}", description="x" * 1_000_000)], "nextCursor": str(number)}


LISTS: dict[str, Callable[[], dict[str, object]]] = {
    "many": many,
    "odd": odd,
    "endless": endless,
    "shapeless": lambda: {"tools": [tool("text", inputSchema={"type": "string"})]},
    "invalid": lambda: {"tools": [{"name": 5, "inputSchema": "none"}]},
}


def answer(message: dict[str, Any]) -> dict[str, object] | None:
    match message["method"]:
        case "server/discover" if kind == "asks_back":
            return {"result": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}} | CACHEABLE}
        case "server/discover" if kind == "strict":
            sys.exit("expected initialize")
        case "server/discover":
            return {"error": {"code": -32601, "message": "no such method"}}
        case "initialize":
            about = {"name": "raw", "version": "1"}
            protocol = message["params"]["protocolVersion"]
            return {"result": {"protocolVersion": protocol, "capabilities": {"tools": {}}, "serverInfo": about}}
        case "tools/list":
            note("listed")
            if kind.endswith("silent"):
                return None
            if kind == "moody" and next(pages):
                return {"error": {"code": -32603, "message": "not now"}}
            return {"result": LISTS.get(kind, lambda: {"tools": [tool("run")]} | CACHEABLE)()}
        case "tools/call":
            note("called")
            return called()
    return None


def called() -> dict[str, object] | None:
    match kind:
        case "endless_line":
            for _ in range(100):
                sys.stdout.write("x" * 1_000_000)
        case "garbage":
            return {"result": {"content": "none"}}
        case "wordy":
            return {"error": {"code": -32000, "message": "I have a word to say"}}
        case "asks_back":
            return {"result": {"resultType": "input_required", "requestState": "x"}}
        case "empty":
            return {"result": {"content": [], "isError": True}}
        case "polite":
            return {"result": {"content": [{"type": "text", "text": "Hi"}]}}
        case "mortal":
            sys.exit()
        case "noisy":
            sys.stdout.write('no JSON\n{"no": "message"}\n' * 1000)
            return {"result": {"content": [{"type": "text", "text": "Hi"}]}}
    return None


if __name__ == "__main__":
    if kind.startswith("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(f"pid {os.getpid()}")
    if kind == "parent":
        note(f"pid {subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']).pid}")
    for line in sys.stdin:
        message = json.loads(line)
        if (body := answer(message)) is not None:
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"]} | body) + "\n")
            sys.stdout.flush()
            if kind == "deaf" and message["method"] == "tools/list":
                os.close(0)
                signal.pause()
    if kind.startswith("stubborn"):
        signal.pause()
