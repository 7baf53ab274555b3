"""The command: `python server.py doctor URL`."""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

from chat.texts import without_password
from doctor.judgement import Finding, Level, judge
from doctor.measurements import Measurements
from doctor.probe import Target, UnreachableError, examine
from doctor.terminal import printable

FINE, FAILED, UNREACHABLE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses. Wrong arguments end with 2, too; 130 is what shells give a program that Ctrl-C has ended."""

LONGEST_IDLE = 300.0
"""Seconds that the service's route is silent at most."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""https://www.rfc-editor.org/rfc/rfc9110#name-tokens"""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
"""https://www.rfc-editor.org/rfc/rfc6454#section-6.2"""


def main(arguments: Sequence[str]) -> int:
    """Examine, say what was found, and return the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    target = Target(given.url, given.origin, dict(given.header), given.idle, given.ca, given.insecure)
    try:
        target.tls()
    except OSError as error:
        parser.error(f"argument --ca: {given.ca}: {error.strerror or error}")
    try:
        return _looked(target, as_json=given.json)
    except KeyboardInterrupt:
        return INTERRUPTED


def _looked(target: Target, *, as_json: bool) -> int:
    url = without_password(target.url)
    try:
        measured = asyncio.run(_examined(target, None if as_json else url))
    except UnreachableError as error:
        _say(json.dumps({"url": url, "error": str(error)}) if as_json else printable(f"FAIL  {url}: {error}"))
        return UNREACHABLE
    findings = judge(measured)
    _say(_as_json(measured, findings) if as_json else _as_text(measured, findings))
    return FAILED if any(finding.level is Level.FAIL for finding in findings) else FINE


async def _examined(target: Target, announced: str | None) -> Measurements:
    """Announced from within the loop, where an interruption ends the work in order from the first word on."""
    if announced is not None:
        seconds = target.idle + 10
        sys.stderr.write(
            f"Looking at {printable(announced)}, for about {seconds:.0f} s: --idle sets the longest silence.\n"
        )
    return await examine(target)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="server.py doctor", description="Say what the proxies in front of a running service do to its streams."
    )
    parser.add_argument("url", metavar="URL", help="where the service's paths begin, as its clients see it")
    parser.add_argument(
        "--origin", type=_origin, help="where the pages are that use it, if elsewhere: https://www.example.org"
    )
    parser.add_argument("--header", action="append", default=[], type=_header, help="'Name: value' for every request")
    parser.add_argument(
        "--idle", type=_idle, default=45.0, metavar="SECONDS", help="longest silence to try, default 45"
    )
    parser.add_argument("--ca", metavar="FILE", help="certificates to trust, in PEM")
    parser.add_argument("--insecure", action="store_true", help="trust any certificate")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (colon and _NAME.fullmatch(name.strip()) and text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError("use 'Name: value'")
    return name.strip().title(), value.strip()


def _origin(text: str) -> str:
    """As browsers send it: in lower case, and without the slash that is copied with an address."""
    origin = text.lower().removesuffix("/")
    if origin != "null" and _ORIGIN.fullmatch(origin) is None:
        raise argparse.ArgumentTypeError("use one such as https://www.example.org, without a path")
    return origin


def _idle(text: str) -> float:
    with suppress(ValueError):
        if 1 <= (seconds := float(text)) <= LONGEST_IDLE:
            return seconds
    raise argparse.ArgumentTypeError(f"use 1 to {LONGEST_IDLE:.0f}")


def _as_text(measured: Measurements, findings: list[Finding]) -> str:
    report = measured.report
    lines = [f"{report.service} (Parley {report.version}) answers at {without_password(measured.url)}."]
    for finding in findings:
        advice = f" {finding.advice}." if finding.advice else ""
        lines.append(f"{finding.level:<5} {finding.check}: {finding.message}{advice}")
    return "\n".join(map(printable, lines))


def _as_json(measured: Measurements, findings: list[Finding]) -> str:
    report = measured.report
    about = {"url": without_password(measured.url), "service": report.service, "version": report.version}
    return json.dumps({**about, "findings": [asdict(finding) for finding in findings]}, indent=2)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
