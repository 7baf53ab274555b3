"""From the process's start until it is ready, and the memory it takes when nobody asks anything."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import parley
from benchmarks.report import Report, verdict

START_TARGET = 0.6
"""Seconds from the start of the process to the first 200 of /ready."""

MEMORY_TARGET = 70.0
"""MB of resident memory at rest."""

REST = 5.0
"""Seconds until a process that nobody asks anything counts as at rest."""

NOWHERE = "http://127.0.0.1:9/v1"
"""An endpoint that makes the model a real one; it is never asked."""


def run(*, short: bool) -> Report:
    rows, notes = [], []
    for model, base_url in (("echo", None), ("gpt-4o-mini", NOWHERE)):
        _start(base_url, 0.0)  # the first start of all compiles what the others find, as on any machine
        starts = [_start(base_url, 0.0) for _ in range(1 if short else 4)] + [_start(base_url, 1.0 if short else REST)]
        ready, cpu = (statistics.median(start[place] for start in starts) for place in (0, 1))
        fresh, rested = starts[-1][2:]
        rows.append((model, f"{ready:.2f}", f"{cpu:.2f}", f"{fresh:.0f}", f"{rested:.0f}"))
        notes += [
            verdict(f"{model}: ready in under {START_TARGET:g} s", ready < START_TARGET, f"{ready:.2f} s"),
            verdict(f"{model}: under {MEMORY_TARGET:g} MB at rest", rested < MEMORY_TARGET, f"{rested:.0f} MB"),
        ]
    return Report(
        name="start",
        title="Start, and memory at rest",
        columns=("model", "s to ready", "CPU s", "MB when ready", "MB at rest"),
        rows=rows,
        notes=(
            f"Medians of {len(starts)}, each with a new database and not the first; MB are 10^6 bytes, resident.",
            "The SDK of a real model is imported beside the first requests: who asks the model before waits for that.",
            "Looked for every 20 ms.",
            *notes,
        ),
    )


def _start(base_url: str | None, rest: float) -> tuple[float, float, float, float]:
    """Seconds until it is ready and of CPU until then; MB then, and after ``rest`` seconds."""
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        with parley(Path(folder), base_url=base_url, PYTHONDONTWRITEBYTECODE="") as server:
            ready, cpu, fresh = time.perf_counter() - began, server.cpu(), server.rss()
            time.sleep(rest)
            return ready, cpu, fresh / 1e6, server.rss() / 1e6
