"""Services are born here, forked from a process that has imported all that they need.

Those imports are nine tenths of a start, more than a second of CPU where a real model is asked, and the tests start
hundreds of services. All else is as with ``python server.py``: a process, a session and a working directory of its own,
the environment it is given, and its own run of ``server.py``. Where the start itself is tested, it is left alone.
"""

import atexit
import json
import os
import runpy
import select
import subprocess
import sys
from asyncio import get_running_loop
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

SERVER = Path(__file__).parents[2] / "server.py"


class Child:
    """A service's process, as far as :class:`asyncio.subprocess.Process` has it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._gone = os.pidfd_open(pid)
        self._status: int | None = None

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it lives."""
        if self._status is None and select.select([self._gone], [], [], 0)[0]:
            self._status = os.waitstatus_to_exitcode(_nursery().asked({"reap": self.pid}))
            os.close(self._gone)
        return self._status

    async def wait(self) -> int:
        while (status := self.returncode) is None:
            loop, watched = get_running_loop(), os.dup(self._gone)  # a loop knows one reader of a descriptor
            gone = loop.create_future()
            loop.add_reader(watched, gone.set_result, None)
            try:
                await gone
            finally:
                loop.remove_reader(watched)
                os.close(watched)
        return status


def bear(environment: Mapping[str, str], folder: Path, log: Path) -> Child:
    """Start ``python server.py``."""
    return Child(_nursery().asked({"environment": dict(environment), "folder": str(folder), "log": str(log)}))


class _Nursery:
    """The process that forks, one for each that tests."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=SERVER.parent, env=environment, start_new_session=True, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(self._close)

    def asked(self, order: Mapping[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _close(self) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate()


@cache
def _nursery() -> _Nursery:
    return _Nursery()


def main() -> None:
    """Fork what each line of stdin orders and tell its id, or wait for one and tell how it ended."""
    import chat.model  # noqa: F401
    import server  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        if "reap" in order:
            print(os.waitpid(order["reap"], 0)[1], flush=True)  # noqa: T201
        elif pid := os.fork():
            print(pid, flush=True)  # noqa: T201
        else:
            _live(order["environment"], order["folder"], order["log"])
            return


def _live(environment: Mapping[str, str], folder: str, log: str) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    null, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for ours, standard in ((null, 0), (out, 1), (out, 2)):
        os.dup2(ours, standard)
    os.close(null)
    os.close(out)
    sys.argv = [str(SERVER)]
    runpy.run_path(str(SERVER), run_name="__main__")


if __name__ == "__main__":
    main()
