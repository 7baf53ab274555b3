"""The servers that Parley is compared with: how each is started, what it is asked, and what it needs to be here."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from benchmarks import databases
from benchmarks.load import KEY
from benchmarks.processes import ROOT, Server, free_port, parley, server

HERE = Path(__file__).parent

BENCH = ROOT / ".venv-bench/bin"
LITELLM = ROOT / ".venv-litellm/bin"
LANGGRAPH = ROOT / ".venv-langgraph/bin"

_INSTALL = "benchmarks/run.sh installs it"


@dataclass(frozen=True, slots=True)
class Peer:
    """``start`` takes the upstream's URL and an empty folder; ``message`` puts a message into the request's body."""

    name: str
    label: str
    path: str
    message: Callable[[str], Mapping[str, object]]
    start: Callable[[str, Path], AbstractContextManager[Server]]
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot run here, if so."""

    def body(self, message: str) -> str:
        return json.dumps(self.message(message))


def _completion(message: str) -> Mapping[str, object]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": message}], "stream": True}


def _chat(message: str) -> Mapping[str, object]:
    return {"message": message}


def _chatkit(message: str) -> Mapping[str, object]:
    content = [{"type": "input_text", "text": message}]
    thread = {"input": {"content": content, "attachments": [], "inference_options": {}}}
    return {"type": "threads.create", "params": thread}


def _agent(message: str) -> Mapping[str, object]:
    messages = {"messages": [{"role": "user", "content": message}]}
    return {"assistant_id": "agent", "input": messages, "stream_mode": ["messages-tuple"]}


def _needs(program: Path, *packages: str) -> Callable[[], str | None]:
    """``packages``: directories that the environment of ``program`` must have."""

    def missing() -> str | None:
        library = next(program.parents[1].glob("lib/python*/site-packages"), Path())
        if program.exists() and all((library / package).exists() for package in packages):
            return None
        return f"not installed; {_INSTALL}"

    return missing


def _run(
    command: Sequence[object], port: int, upstream: str, folder: Path, **environment: str
) -> AbstractContextManager[Server]:
    """In ``folder``: what a server leaves behind goes away with it."""
    variables = {
        "PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "UPSTREAM": upstream,
        "OPENAI_BASE_URL": f"{upstream}/v1",
        "OPENAI_API_KEY": "none",
        **environment,
    }
    return server([str(word) for word in command], port, environment=variables, log=folder / "log", folder=folder)


def _start_parley(upstream: str, folder: Path) -> AbstractContextManager[Server]:
    return parley(folder, base_url=f"{upstream}/v1")


@contextmanager
def _start_on_postgres(upstream: str, folder: Path) -> Iterator[Server]:
    """On a new database of the local cluster. What PostgreSQL itself takes is not counted."""
    with databases.database() as url, parley(folder, base_url=f"{upstream}/v1", DATABASE_URL=url) as running:
        yield running


def _start_passthrough(upstream: str, folder: Path) -> AbstractContextManager[Server]:
    return _run([sys.executable, "-m", "benchmarks.peers.passthrough"], free_port(), upstream, folder)


def _start_nginx(upstream: str, folder: Path) -> AbstractContextManager[Server]:
    port = free_port()
    template = Template((HERE / "nginx.conf").read_text())
    values = {"port": port, "upstream": urlsplit(upstream).netloc, "folder": folder}
    (folder / "nginx.conf").write_text(template.safe_substitute(values))
    return _run([_nginx() or "nginx", "-p", folder, "-c", folder / "nginx.conf"], port, upstream, folder)


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def _uvicorn(app: str) -> Callable[[str, Path], AbstractContextManager[Server]]:
    def start(upstream: str, folder: Path) -> AbstractContextManager[Server]:
        port = free_port()
        command = [BENCH / "python", "-m", "uvicorn", f"benchmarks.peers.{app}:app", "--port", port]
        return _run([*command, "--log-level", "warning"], port, upstream, folder)

    return start


def _start_litellm(upstream: str, folder: Path) -> AbstractContextManager[Server]:
    port = free_port()
    command = [LITELLM / "litellm", "--config", HERE / "litellm.yaml", "--host", "127.0.0.1", "--port", port]
    variables = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    return _run([*command, "--telemetry", "False"], port, upstream, folder, **variables)


def _start_langgraph(upstream: str, folder: Path) -> AbstractContextManager[Server]:
    port = free_port()
    config = folder / "langgraph.json"
    graph = f"{HERE / 'langgraph_agent.py'}:graph"
    config.write_text(json.dumps({"dependencies": [str(HERE)], "graphs": {"agent": graph}}))
    command = [LANGGRAPH / "langgraph", "dev", "--config", config, "--host", "127.0.0.1"]
    # As many workers as there are streams, else they wait for one another.
    options = ["--port", port, "--no-browser", "--no-reload", "--n-jobs-per-worker", 400]
    quiet = {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false", "LOG_LEVEL": "ERROR"}
    return _run([*command, *options], port, upstream, folder, **quiet)


PARLEY = Peer("parley", "Parley", "/chat", _chat, _start_parley)
PARLEY_ON_POSTGRES = Peer(
    "parley-postgres", "Parley on PostgreSQL", "/chat", _chat, _start_on_postgres, databases.missing
)
PASSTHROUGH = Peer("passthrough", "bare aiohttp pass-through", "/v1/chat/completions", _completion, _start_passthrough)
HANDWRITTEN = Peer(
    "handwritten",
    "FastAPI + openai SDK, by hand",
    "/chat",
    _chat,
    _uvicorn("handwritten"),
    _needs(BENCH / "python", "fastapi", "openai"),
)
LITELLM_PROXY = Peer(
    "litellm", "LiteLLM's proxy", "/v1/chat/completions", _completion, _start_litellm, _needs(LITELLM / "litellm")
)

PEERS: Sequence[Peer] = (
    Peer(
        "nginx",
        "nginx, plain proxy",
        "/v1/chat/completions",
        _completion,
        _start_nginx,
        lambda: None if _nginx() else "not installed; apt-get install nginx-light",
    ),
    PASSTHROUGH,
    PARLEY,
    PARLEY_ON_POSTGRES,
    HANDWRITTEN,
    Peer(
        "fastapi-sse",
        "FastAPI's fastapi.sse + openai SDK",
        "/chat",
        _chat,
        _uvicorn("fastapi_sse"),
        _needs(BENCH / "python", "fastapi/sse.py", "openai"),
    ),
    Peer(
        "chatkit",
        "openai-chatkit's server",
        "/chatkit",
        _chatkit,
        _uvicorn("chatkit_server"),
        _needs(BENCH / "python", "chatkit", "fastapi"),
    ),
    LITELLM_PROXY,
    Peer(
        "langgraph",
        "LangGraph's server, in memory",
        "/runs/stream",
        _agent,
        _start_langgraph,
        _needs(LANGGRAPH / "langgraph", "langgraph_api"),
    ),
)

NOT_TAKEN: Mapping[str, str] = {
    "Aegra": "its server needs PostgreSQL, and since 0.7 Python 3.12, which is not what the others run with"
}
"""What belongs here and is not: why, by label."""
