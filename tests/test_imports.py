"""Importing does nothing but import: no file, no connection, no thread, no process-wide switch of ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PACKAGES = ("chat", "doctor", "handlers", "knowledge", "mcp_tools", "store")

MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in [
        ROOT / "server.py",
        ROOT / "composition.py",
        ROOT / "settings.py",
        *(f for name in PACKAGES for f in (ROOT / name).rglob("*.py")),
    ]
)

PARTS = 4
"""Processes that share the modules: each module is imported with all that it needs of ours, 15 s of CPU in all."""

PATIENCE = 300
"""Seconds; the tests share their machine."""

CHATKIT = "ignore:Direct usage of named widget classes:DeprecationWarning"
"""What chatkit.widgets says of itself when it is imported."""

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
        cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
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
        ("doctor.command", {"handlers", "store", "starlette", "pydantic", "openai", "uvicorn"}),
        ("handlers", {"store", "aiosqlite", "sqlite3", "openai", "httpx2", "aiohttp", "swagger_ui", "chatkit"}),
        ("store.sqlite", {"starlette", "handlers", "openai", "pydantic", "asyncpg"}),
        ("store.postgres", {"starlette", "handlers", "openai", "pydantic", "aiosqlite", "sqlite3"}),
        ("handlers.chatkit.operations", {"store", "openai", "agents", "mcp"}),
        (
            "server",
            {
                "openai",
                "httpx",
                "httpx2",
                "doctor",
                "jinja2",
                "opentelemetry",
                "mcp",
                "mcp_tools",
                "chatkit",
                "asyncpg",
            },
        ),
        ("mcp_tools.config", {"mcp", "mcp_types", "httpx2", "starlette"}),
    ],
)
def test_module_knows_only_what_it_needs(tmp_path: Path, module: str, never: set[str]) -> None:
    modules = imported(tmp_path, module)["modules"]
    assert isinstance(modules, list)
    assert module in modules
    assert {name.partition(".")[0] for name in modules} & never == set()


@pytest.mark.parametrize("part", range(PARTS))
def test_every_module_can_be_imported_first(tmp_path: Path, part: int) -> None:
    """No import works only because another one came before it."""
    code = (  # half of the time would go into the search for what is left of the imports before
        "import gc, importlib, sys; gc.disable(); sys.path.insert(0, sys.argv[1])\n"
        "for name in sys.argv[2:]:\n"
        f"    ours = {(*PACKAGES, 'server', 'composition', 'settings')}\n"
        "    for known in [m for m in sys.modules if m.partition('.')[0] in ours]:\n"
        "        del sys.modules[known]\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", CHATKIT, "-c", code, str(ROOT), *MODULES[part::PARTS]],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
