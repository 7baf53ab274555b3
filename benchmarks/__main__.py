"""``python -m benchmarks [names...]``: prints each table and keeps it, with a picture, in ``benchmarks/results``."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from benchmarks.processes import ROOT
from benchmarks.report import RESULTS, Report

NAMES = ("cost", "growth", "followers", "replay", "endurance", "start", "workers", "replicas", "retrieval")

PLOTTING = ROOT / ".venv-bench/bin/python"
"""An interpreter that has matplotlib, if this one has not."""


def measure(name: str, arguments: argparse.Namespace) -> Sequence[Report]:
    module = import_module(f"benchmarks.{name}")  # one that is not asked for need not be importable
    peers = {"peers": arguments.peers.split(",")} if name == "cost" and arguments.peers else {}
    found = cast("Report | Sequence[Report]", module.run(short=arguments.short, **peers))
    return [found] if isinstance(found, Report) else found


def keep(report: Report) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{report.name}.md").write_text(report.markdown(), encoding="utf-8")
    python = sys.executable if find_spec("matplotlib") else str(PLOTTING)
    try:
        subprocess.run(
            [python, "-m", "benchmarks.picture", str(RESULTS / f"{report.name}.svg")],
            input=json.dumps(asdict(report), default=str), text=True, check=True, cwd=ROOT,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no picture of {report.name}: {error}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/run.sh", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--short", action="store_true", help="a few seconds each, to compare with; keeps no results")
    parser.add_argument("--peers", help="the servers that cost compares, by commas")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in arguments.names or NAMES:
        for report in measure(name, arguments):
            print(report.markdown(), flush=True)
            if not arguments.short and not arguments.peers:
                keep(report)


if __name__ == "__main__":
    main()
