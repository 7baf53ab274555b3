"""What the doctor says to what was measured. Whether it measures right is seen through real proxies, in tests/live."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doctor.judgement import Finding, Level, judge
from doctor.measurements import Arrival, Measurements, Report, Silence, Watched
from handlers.doctor import READ, SENT

ROOT = Path(__file__).parents[1]

SENT_TIMES = (0.3, 0.6, 0.9, 1.2)
ORIGIN = "https://www.example.org"

REPORT = Report(
    service="parley",
    version="1.2.3",
    http_version="1.1",
    received=frozenset(READ),
    sent=frozenset(name.lower() for name in SENT),
    body_limit=2_000_000,
    ping_seconds=15,
)
HEADERS = dict.fromkeys(REPORT.sent, "x") | {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "access-control-allow-origin": ORIGIN,
    "access-control-expose-headers": ", ".join(SENT),
}


def arrivals(came: Sequence[float]) -> tuple[Arrival, ...]:
    pairs = zip(SENT_TIMES, came, strict=True)
    return tuple(Arrival(number, sent, then) for number, (sent, then) in enumerate(pairs, 1))


def watched(came: Sequence[float] = (0.31, 0.61, 0.91, 1.21), **known: Any) -> Watched:
    whole: dict[str, Any] = {"status": 200, "headers": HEADERS, "report": REPORT, "arrivals": arrivals(came)}
    return Watched(**(whole | known))


GOOD = Measurements(
    url="https://chat.example.org",
    report=REPORT,
    floor=0.01,
    get=watched(),
    post=watched(),
    resumed=watched(arrivals=(Arrival(4, 0.05, 0.06),)),
    seen=3,
    full=watched(),
    full_bytes=2_000_000,
    silences=(Silence(seconds=45, pings=False, cut=None), Silence(seconds=45, pings=True, cut=None)),
    protocol="h2",
    origin=ORIGIN,
    preflight=Watched(status=200, headers=HEADERS | {"access-control-allow-headers": "*"}),
)
FAILED = Watched(status=405, report=None)
HELD = watched((1.22, 1.22, 1.22, 1.23))
LATE = watched((0.51, 0.81, 1.11, 1.41))
CUT = watched(arrivals=(), whole=False, over=2.0)


def wrong(**measured: Any) -> list[Finding]:
    return [finding for finding in judge(replace(GOOD, **measured)) if finding.level is not Level.OK]


def test_all_is_well() -> None:
    assert [f"{finding.check}: {finding.message}" for finding in judge(GOOD)] == [
        "buffering: 4 events came one by one, as they were sent.",
        "compression: The stream is not compressed.",
        "post: POST streams as GET does.",
        "http: HTTP/1.1 or better is spoken at both ends.",
        "request-headers: The request headers that clients need arrive.",
        "response-headers: The response headers that clients need arrive.",
        "resume: A stream that was left behind event 3 goes on with event 4.",
        "idle: Streams that are silent for 45 s stay open; the service pings every 15 s.",
        "connections: HTTP/2 is spoken: as many streams as there are tabs.",
        "body: A body of 2,000,000 bytes arrives.",
        "cors: Pages at https://www.example.org may use it.",
        "cookies: Cookies get through; the service needs none.",
    ]
    assert {(finding.level, finding.advice) for finding in judge(GOOD)} == {(Level.OK, "")}


def silences(cut: float | None, pinged: float | None = None) -> tuple[Silence, ...]:
    return Silence(seconds=45, pings=False, cut=cut), Silence(seconds=45, pings=True, cut=pinged)


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in HEADERS.items() if name not in names}


def lacking(name: str) -> Report:
    return replace(REPORT, received=REPORT.received - {name})


CASES: list[tuple[dict[str, Any], str]] = [
    ({"get": HELD, "post": HELD}, "FAIL buffering: Events are held back: the first one came when the last one had"),
    ({"get": LATE, "post": LATE}, "WARN delay: Events come, but each about 0.20 s late."),
    ({"get": CUT, "post": CUT}, "FAIL stream: A stream in which events come all the time is cut off after 2.0 s."),
    (
        {"get": replace(CUT, whole=True, report=None)},
        "FAIL stream: A stream in which events come all the time is answered by something else",
    ),
    ({"post": HELD}, "FAIL post: Events are held back by POST, not by GET."),
    ({"post": LATE}, "FAIL post: Events come about 0.20 s late by POST, not by GET."),
    ({"get": LATE, "post": HELD}, "WARN delay, FAIL post"),
    ({"post": FAILED, "full": FAILED}, "FAIL post: A stream by POST is answered with 405."),
    ({"post": Watched(status=0, trouble="Gone.")}, "FAIL post: A stream by POST gets no answer: Gone."),
    (
        {"get": watched(headers=HEADERS | {"content-encoding": "br"})},
        "WARN compression: The stream is compressed (br): ",
    ),
    (
        {"get": replace(HELD, headers=HEADERS | {"content-encoding": "gzip"}), "post": HELD},
        "FAIL compression: The stream is compressed (gzip), and held back until its end for that.",
    ),
    ({"report": replace(REPORT, http_version="1.0")}, "WARN http: The last proxy speaks HTTP/1.0 to the service"),
    ({"get": watched(http_version="HTTP/1.0")}, "WARN http: The front answers in HTTP/1.0"),
    (
        {"post": watched(report=lacking("idempotency-key"))},
        "FAIL request-headers: Request headers do not arrive at the service: Idempotency-Key.",
    ),
    ({"get": watched(headers=without("x-accel-buffering"))}, ""),
    (
        {"get": watched(headers=without("x-run-id", "location"))},
        "FAIL response-headers: Response headers do not arrive here: Location, X-Run-Id.",
    ),
    (
        {"get": watched(headers=HEADERS | {"content-type": "text/plain"})},
        "FAIL response-headers: Content-Type arrives as text/plain",
    ),
    (
        {"get": watched(headers=HEADERS | {"cache-control": "public"})},
        "FAIL response-headers: Cache-Control arrives as public",
    ),
    (
        {"resumed": watched(report=lacking("last-event-id"))},
        "FAIL resume: Last-Event-ID does not arrive at the service",
    ),
    ({"resumed": watched()}, "FAIL resume: A stream that was left behind event 3 goes on with event 1."),
    ({"resumed": watched(arrivals=())}, "FAIL resume: A stream that was left behind event 3 goes on with nothing."),
    ({"resumed": FAILED}, "FAIL resume: A stream with a Last-Event-ID is answered with 405."),
    (
        {"silences": silences(10, 10)},
        "FAIL idle: A silent stream is cut off after 10.0 s, and the service pings every 15 s.",
    ),
    ({"silences": silences(14.9)}, "FAIL idle: A silent stream is cut off after 14.9 s"),
    ({"silences": silences(20)}, "WARN idle: A silent stream is cut off after 20.0 s: one ping late, every 15 s"),
    ({"silences": silences(40)}, ""),
    ({"silences": silences(None, 40)}, "FAIL idle: A stream is cut off after 40.0 s, although the service pings"),
    (
        {"protocol": "http/1.1"},
        "WARN connections: HTTP/2 is not spoken: browsers then open six connections at most",
    ),
    ({"protocol": ""}, "WARN connections: Without TLS it is HTTP/1.1: browsers then open six connections at most"),
    ({"protocol": None}, "WARN connections: Whether HTTP/2 is spoken could not be found out."),
    (
        {"full": Watched(status=413)},
        "WARN body: A body of 2,000,000 bytes, which the service would take, is answered with 413.",
    ),
    ({"origin": None, "preflight": None}, ""),
    (
        {"preflight": FAILED},
        "FAIL cors: Pages at https://www.example.org are barred: the preflight is answered with 405.",
    ),
    (
        {"preflight": Watched(status=200)},
        "FAIL cors: Pages at https://www.example.org are barred: the preflight has no ",
    ),
    (
        {"preflight": Watched(status=204, headers=HEADERS | {"access-control-allow-headers": "content-type, Prefer"})},
        "FAIL cors: Pages at https://www.example.org are barred: the preflight does not allow Idempotency-Key, ",
    ),
    (
        {"get": watched(headers=without("access-control-allow-origin"))},
        "FAIL cors: Pages at https://www.example.org are barred: GET has no",
    ),
    (
        {"get": watched(headers=HEADERS | {"access-control-allow-origin": "*, *"})},
        "FAIL cors: Pages at https://www.example.org are barred: GET has more",
    ),
    (
        {"get": watched(headers=HEADERS | {"access-control-allow-origin": "https://x"})},
        "FAIL cors: Pages at https://www.example.org are barred: GET has Access",
    ),
    ({"get": watched(headers=HEADERS | {"access-control-allow-origin": "*"})}, ""),
    ({"get": watched(headers=HEADERS | {"access-control-expose-headers": "*"})}, ""),
    ({"get": watched(headers=HEADERS | {"access-control-expose-headers": ", ".join(SENT[2:])})}, ""),
    (
        {"get": watched(headers=HEADERS | {"access-control-expose-headers": ", ".join(SENT[:-1])})},
        "FAIL cors: Pages at https://www.example.org cannot read X-User-Id",
    ),
    (
        {"get": watched(headers=HEADERS | {"set-cookie": "route=1"})},
        "WARN cookies: A proxy sets a cookie, and pages of",
    ),
    ({"get": watched(headers=HEADERS | {"set-cookie": "route=1"}), "origin": None}, ""),
    ({"report": lacking("cookie")}, "WARN cookies: Cookies do not arrive at the service."),
]


@pytest.mark.parametrize(("measured", "found"), CASES)
def test_each_thing_that_is_wrong_is_one_finding(measured: dict[str, Any], found: str) -> None:
    findings = wrong(**measured)
    if ":" in found:
        assert len(findings) == 1, findings
        assert f"{findings[0].level} {findings[0].check}: {findings[0].message}".startswith(found)
        assert findings[0].advice
    else:
        assert ", ".join(f"{finding.level} {finding.check}" for finding in findings) == found


def test_cut_that_pings_prevent_is_told_and_is_no_fault() -> None:
    [idle] = [finding for finding in judge(replace(GOOD, silences=silences(40))) if finding.check == "idle"]
    assert idle.level is Level.OK
    assert idle.message == "A silent stream is cut off after 40.0 s; the service's pings, every 15 s, keep it open."


@pytest.mark.parametrize(
    "came",
    [
        (1.0, 1.0, 1.0, 1.21),  # nothing was read for a while
        (0.31, 0.61, 1.4, 1.4),
        (0.31, 0.9, 0.95, 1.9),
    ],
)
def test_busy_machine_is_no_proxy(came: Sequence[float]) -> None:
    assert wrong(get=watched(came), post=watched(came)) == []


def test_distance_is_no_delay() -> None:
    far = watched((0.71, 1.01, 1.31, 1.61))
    assert wrong(get=far, post=far, floor=0.4) == []
    assert [finding.check for finding in wrong(get=far, post=far, floor=0.1)] == ["delay"]


def test_every_check_is_in_the_docs() -> None:
    written = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/deploying.md").read_text(), re.MULTILINE)
    assert set(written) == {finding.check for measured, _ in CASES for finding in judge(replace(GOOD, **measured))}
