"""Importing does nothing but import: no file, no connection, no thread, no process-wide switch of ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in [
        ROOT / "server.py",
        ROOT / "settings.py",
        *(f for name in ("chat", "handlers", "mcp_tools", "store") for f in (ROOT / name).rglob("*.py")),
    ]
)

WATCHED = """
import json, os, sys, threading
sys.path.insert(0, sys.argv[1])
seen, env, cwd = [], dict(os.environ), os.getcwd()

def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.append([event, str(arguments[0])])
    elif event in ("os.mkdir", "os.remove", "os.rename", "sqlite3.connect", "subprocess.Popen", "os.fork", "os.system",
                   "socket.connect", "socket.bind", "socket.getaddrinfo", "signal.signal"):
        seen.append([event, repr(arguments)])

sys.addaudithook(watch)
import importlib
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps({
    "seen": seen,
    "files": os.listdir("."),
    "environment": dict(os.environ) == env,
    "folder": os.getcwd() == cwd,
    "threads": threading.active_count(),
    "modules": sorted(sys.modules),
}))
"""


def imported(folder: Path, *modules: str) -> dict[str, object]:
    """What happened in an empty folder when these modules were imported."""
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(ROOT), *modules],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


def test_import_of_everything_touches_nothing(tmp_path: Path) -> None:
    found = imported(tmp_path, *MODULES)
    assert found["files"] == []
    assert [event for event in found["seen"] if not harmless(*event)] == []  # type: ignore[attr-defined]
    assert (found["environment"], found["folder"], found["threads"]) == (True, True, 1)


def harmless(event: str, what: str) -> bool:
    """What libraries do that cannot be told from outside."""
    return event == "open" and what == os.devnull


@pytest.mark.parametrize(
    ("module", "never"),
    [
        (
            "chat.engine",
            {"starlette", "sse_starlette", "uvicorn", "pydantic", "aiosqlite", "sqlite3", "openai", "httpx2"},
        ),
        ("chat.routing", {"openai", "httpx2", "aiohttp", "starlette"}),
        ("chat.upstream", {"openai", "httpx2", "aiohttp", "starlette"}),
        ("handlers", {"store", "aiosqlite", "sqlite3", "openai", "httpx2", "aiohttp", "swagger_ui"}),
        ("store.sqlite", {"starlette", "handlers", "openai", "pydantic"}),
        ("server", {"openai", "httpx2", "jinja2", "opentelemetry", "mcp", "mcp_tools"}),
        ("mcp_tools.config", {"mcp", "mcp_types", "httpx2", "starlette"}),
    ],
)
def test_module_knows_only_what_it_needs(tmp_path: Path, module: str, never: set[str]) -> None:
    modules = imported(tmp_path, module)["modules"]
    assert isinstance(modules, list)
    assert module in modules
    assert {name.partition(".")[0] for name in modules} & never == set()


def test_every_module_can_be_imported_first(tmp_path: Path) -> None:
    """No import works only because another one came before it."""
    code = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "for name in sys.argv[2:]:\n"
        "    ours = ('chat', 'handlers', 'mcp_tools', 'store', 'server', 'settings')\n"
        "    for known in [m for m in sys.modules if m.partition('.')[0] in ours]:\n"
        "        del sys.modules[known]\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(ROOT), *MODULES],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
