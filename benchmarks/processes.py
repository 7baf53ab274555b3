"""Server processes under measurement: started, waited for, their CPU time and memory read from /proc, stopped."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

PATIENCE = 60.0
"""Seconds that a server gets to answer on its port."""


class Server:
    """A running server with all its descendants."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def pids(self) -> list[int]:
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                queue += map(int, task.read_text().split())
        return found

    def cpu(self) -> float:
        """Seconds on a CPU so far, user and system, of all threads that live, to the nanosecond."""
        return sum(self.cpu_by_process().values())

    def cpu_by_process(self) -> dict[int, float]:
        """The same for each process."""
        return {
            pid: sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
            for pid in self.pids
        }

    def rss(self) -> int:
        """Bytes of memory that are resident."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids)
        return pages * os.sysconf("SC_PAGE_SIZE")

    def threads(self) -> int:
        return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in self.pids)

    def descriptors(self) -> int:
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.pids)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def server(
    command: Sequence[str],
    port: int,
    *,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    folder: Path = ROOT,
) -> Iterator[Server]:
    """Run ``command``, which listens on ``port``, in ``folder`` while inside. Its output goes to ``log``."""
    with (log or Path(os.devnull)).open("ab") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, cwd=folder,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        _until_listening(process, port)
        yield Server(process, port)
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until_listening(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


class Reading:
    """The load generator's process while inside, which reads from ``url``."""

    def __init__(self, url: str, *options: str) -> None:
        command = [sys.executable, "-m", "benchmarks.load", url, *options]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> "Reading":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def event(self, name: str) -> dict[str, Any]:
        """Wait for it.

        Raises:
            RuntimeError: the generator ended instead; its last words.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise RuntimeError(errors.strip().splitlines()[-1] if errors.strip() else "the load generator ended")
        event: dict[str, Any] = json.loads(line)
        assert event["event"] == name, event
        return event


@contextmanager
def upstream(rate: float = 50, tokens: int = 300) -> Iterator[Server]:
    """The paced model of :mod:`benchmarks.upstream`."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", f"--rate={rate}", f"--tokens={tokens}", f"--port={port}"]
    with server(command, port) as running:
        yield running


@contextmanager
def parley(
    folder: Path, *, base_url: str | None = None, program: Sequence[str] = ("server.py",), **settings: str
) -> Iterator[Server]:
    """This service on a new database in ``folder``; with the echo model unless ``base_url`` names another."""
    port = free_port()
    environment = {
        "PORT": str(port),
        "DATABASE_URL": f"sqlite:///{folder / 'parley.db'}",
        "LOG_LEVEL": "WARNING",
        **dict.fromkeys(("MAX_RUNS", "MAX_STREAMS", "MAX_REPLAYS", "MAX_FOLLOWERS"), "0"),
        **({"BASE_URL": base_url, "MODEL_NAME": "gpt-4o-mini"} if base_url else {"MODEL_NAME": "echo"}),
        **settings,
    }
    with server([sys.executable, *program], port, environment=environment, log=folder / "log") as running:
        _until_ready(port)
        yield running


def _until_ready(port: int) -> None:
    """It listens before its database is open, if that takes long."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/ready")
        ready = connection.getresponse().status == 200
        connection.close()
        if ready:
            return
        time.sleep(0.02)
    raise TimeoutError(f"the server on port {port} does not become ready")
