"""What measurements mean, in plain words: pure, no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from doctor.measurements import Measurements, Watched


class Level(StrEnum):
    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """``advice``: what to change, empty where nothing is to be changed."""

    level: Level
    check: str
    message: str
    advice: str = ""


NEEDED = ("content-type", "idempotency-key", "prefer", "x-session-id")
"""Request headers that clients send and that change what the service does. Last-Event-ID has a check of its own."""

SAFELISTED = frozenset({"cache-control", "content-type"})
"""Response headers that pages may read without leave: https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name"""

EATEN = "x-accel-buffering"
"""nginx obeys it and takes it out, so that it is missing proves nothing."""

NO_CUT = (
    "nginx: proxy_read_timeout 1h; haproxy: timeout server 1h; "
    "or set PING_SECONDS of the service to less than half of that"
)
NO_BUFFER = (
    "nginx: proxy_buffering off and proxy_http_version 1.1 in each one of the chain, for the innermost uses up "
    "X-Accel-Buffering; elsewhere: switch off the buffering of responses"
)
NO_GZIP = "nginx: gzip off, or no text/event-stream in gzip_types; elsewhere: do not compress text/event-stream"


def judge(measured: Measurements) -> list[Finding]:
    """All findings, one for each check."""
    checks = (_stream, _compression, _post, _http, _request, _response, _resume, _idle, _connections, _body)
    return [finding for check in (*checks, _cors, _cookies) for finding in check(measured)]


def _stream(measured: Measurements) -> Iterator[Finding]:
    watched, floor = measured.get, measured.floor
    late = watched.lateness(floor)
    if _broken(watched):
        yield Finding(Level.FAIL, "stream", f"A stream in which events come all the time {_broken(watched)}.", NO_CUT)
    elif watched.held(floor):
        if "content-encoding" not in watched.headers:  # else that is why
            message = "Events are held back: the first one came when the last one had been sent."
            yield Finding(Level.FAIL, "buffering", message, NO_BUFFER)
    elif late:
        message = f"Events come, but each about {late:.2f} s late."
        yield Finding(Level.WARN, "delay", message, "haproxy: option http-no-delay; nginx: tcp_nodelay on")
    else:
        yield Finding(Level.OK, "buffering", f"{len(watched.arrivals)} events came one by one, as they were sent.")


def _compression(measured: Measurements) -> Iterator[Finding]:
    coding = measured.get.headers.get("content-encoding")
    if coding is None:
        yield Finding(Level.OK, "compression", "The stream is not compressed.")
    elif measured.get.held(measured.floor):
        message = f"The stream is compressed ({coding}), and held back until its end for that."
        yield Finding(Level.FAIL, "compression", message, NO_GZIP)
    else:
        message = (
            f"The stream is compressed ({coding}): that takes time for each token, and not every client can read it."
        )
        yield Finding(Level.WARN, "compression", message, NO_GZIP)


def _post(measured: Measurements) -> Iterator[Finding]:
    post, floor = measured.post, measured.floor
    advice = "Treat POST as GET in every proxy: the same location, buffering and timeouts"
    if _badness(post, floor) <= _badness(measured.get, floor):
        yield Finding(Level.OK, "post", "POST streams as GET does.")
    elif _broken(post):
        yield Finding(Level.FAIL, "post", f"A stream by POST {_broken(post)}.", advice)
    elif post.held(floor):
        yield Finding(Level.FAIL, "post", "Events are held back by POST, not by GET.", advice)
    else:
        message = f"Events come about {post.lateness(floor):.2f} s late by POST, not by GET."
        yield Finding(Level.FAIL, "post", message, advice)


def _badness(watched: Watched, floor: float) -> int:
    kinds = (bool(_broken(watched)), watched.held(floor), watched.lateness(floor) > 0)
    return len(kinds) - kinds.index(True) if any(kinds) else 0


def _http(measured: Measurements) -> Iterator[Finding]:
    advice = "nginx: proxy_http_version 1.1"
    if measured.report.http_version == "1.0":
        message = "The last proxy speaks HTTP/1.0 to the service: a new connection for every request."
        yield Finding(Level.WARN, "http", message, advice)
    elif measured.get.http_version == "HTTP/1.0":
        message = "The front answers in HTTP/1.0: a stream that was cut looks like one that has ended."
        yield Finding(Level.WARN, "http", message, advice)
    else:
        yield Finding(Level.OK, "http", "HTTP/1.1 or better is spoken at both ends.")


def _request(measured: Measurements) -> Iterator[Finding]:
    if measured.post.report is None:
        return  # what became of POST has been said
    if lost := [name for name in NEEDED if name not in measured.post.report.received]:
        message = f"Request headers do not arrive at the service: {_names(lost)}."
        advice = 'nginx: remove proxy_set_header NAME ""; elsewhere: let them through'
        yield Finding(Level.FAIL, "request-headers", message, advice)
    else:
        yield Finding(Level.OK, "request-headers", "The request headers that clients need arrive.")


def _response(measured: Measurements) -> Iterator[Finding]:
    headers = measured.get.headers
    if measured.get.report is None:
        return  # these are not the service's
    advice = "nginx: remove proxy_hide_header NAME; elsewhere: let it through as it is"
    lost = sorted(measured.report.sent - headers.keys() - {EATEN})
    if lost:
        message = f"Response headers do not arrive here: {_names(lost)}."
        yield Finding(Level.FAIL, "response-headers", message, advice)
    elif not headers["content-type"].lower().startswith("text/event-stream"):
        kind = headers["content-type"]
        message = f"Content-Type arrives as {kind}: EventSource gives up on all but text/event-stream."
        yield Finding(Level.FAIL, "response-headers", message, advice)
    elif "no-store" not in headers["cache-control"].lower():
        message = f"Cache-Control arrives as {headers['cache-control']}: answers may be stored on the way."
        yield Finding(Level.FAIL, "response-headers", message, advice)
    else:
        yield Finding(Level.OK, "response-headers", "The response headers that clients need arrive.")


def _resume(measured: Measurements) -> Iterator[Finding]:
    resumed, seen = measured.resumed, measured.seen
    first = resumed.arrivals[0].number if resumed.arrivals else None
    if first == seen + 1:
        yield Finding(Level.OK, "resume", f"A stream that was left behind event {seen} goes on with event {first}.")
    elif resumed.report is None:
        yield Finding(Level.FAIL, "resume", f"A stream with a Last-Event-ID {_broken(resumed)}.", "Let it through")
    elif "last-event-id" not in resumed.report.received:
        message = "Last-Event-ID does not arrive at the service: a client that reconnects begins anew."
        advice = 'nginx: remove proxy_set_header Last-Event-ID ""; elsewhere: let it through'
        yield Finding(Level.FAIL, "resume", message, advice)
    else:
        on = "nothing" if first is None else f"event {first}"
        message = f"A stream that was left behind event {seen} goes on with {on}."
        advice = "Nothing on the way may store, repeat or shorten text/event-stream"
        yield Finding(Level.FAIL, "resume", message, advice)


def _idle(measured: Measurements) -> Iterator[Finding]:
    ping = measured.report.ping_seconds
    cuts = [silence.cut for silence in measured.silences if silence.cut is not None and not silence.pings]
    pinged = [silence.cut for silence in measured.silences if silence.cut is not None and silence.pings]
    longest = max((silence.seconds for silence in measured.silences), default=0.0)
    cut = min(cuts, default=None)
    if cut is not None and (pinged or cut <= ping):
        message = f"A silent stream is cut off after {cut:.1f} s, and the service pings every {ping:g} s."
        yield Finding(Level.FAIL, "idle", message, NO_CUT)
    elif pinged:
        message = f"A stream is cut off after {min(pinged):.1f} s, although the service pings every {ping:g} s."
        yield Finding(Level.FAIL, "idle", message, "Raise the limit on how long a response may take as a whole")
    elif cut is not None and cut < 2 * ping:
        message = f"A silent stream is cut off after {cut:.1f} s: one ping late, every {ping:g} s, and it is lost."
        yield Finding(Level.WARN, "idle", message, NO_CUT)
    elif cut is not None:
        message = f"A silent stream is cut off after {cut:.1f} s; the service's pings, every {ping:g} s, keep it open."
        yield Finding(Level.OK, "idle", message)
    else:
        message = f"Streams that are silent for {longest:g} s stay open; the service pings every {ping:g} s."
        yield Finding(Level.OK, "idle", message)


def _connections(measured: Measurements) -> Iterator[Finding]:
    advice = (
        "Put TLS and HTTP/2 in front: nginx: listen 443 ssl http2; haproxy: alpn h2,http/1.1; Caddy does it by itself"
    )
    six = "browsers then open six connections at most, and with six streams in open tabs nothing else gets through"
    match measured.protocol:
        case "h2":
            yield Finding(Level.OK, "connections", "HTTP/2 is spoken: as many streams as there are tabs.")
        case None:
            yield Finding(Level.WARN, "connections", "Whether HTTP/2 is spoken could not be found out.", advice)
        case "":
            yield Finding(Level.WARN, "connections", f"Without TLS it is HTTP/1.1: {six}.", advice)
        case _:
            yield Finding(Level.WARN, "connections", f"HTTP/2 is not spoken: {six}.", advice)


def _body(measured: Measurements) -> Iterator[Finding]:
    size = measured.full_bytes
    if measured.post.report is None:
        return  # not even small ones do
    if measured.full.report is not None:
        yield Finding(Level.OK, "body", f"A body of {size:,} bytes arrives.")
    else:
        message = f"A body of {size:,} bytes, which the service would take, {_broken(measured.full)}."
        megabytes = -(-size // 2**20)
        advice = f"nginx: client_max_body_size {megabytes}m; or set MAX_BODY_BYTES of the service to what gets through"
        yield Finding(Level.WARN, "body", message, advice)


def _cors(measured: Measurements) -> Iterator[Finding]:
    if measured.origin is None or measured.preflight is None:
        message = "Not looked at: give --origin https://their.address if the pages are not at this address."
        yield Finding(Level.OK, "cors", message)
        return
    preflight, get = measured.preflight, measured.get
    wrong = _barred(measured.origin, preflight, "the preflight") or _barred(measured.origin, get, "GET")
    granted = _split(preflight.headers.get("access-control-allow-headers", ""))
    if not wrong and "*" not in granted and (kept := sorted({*NEEDED, "last-event-id"} - granted)):
        wrong = f"the preflight does not allow {_names(kept)}"
    exposed = _split(measured.get.headers.get("access-control-expose-headers", ""))
    unseen = sorted((measured.report.sent & measured.get.headers.keys()) - SAFELISTED - {EATEN} - exposed)
    advice = f"Set ALLOWED_ORIGINS={measured.origin} at the service; no proxy adds or hides Access-Control headers"
    if wrong:
        yield Finding(Level.FAIL, "cors", f"Pages at {measured.origin} are barred: {wrong}.", advice)
    elif unseen and "*" not in exposed:
        message = f"Pages at {measured.origin} cannot read {_names(unseen)}: not in Access-Control-Expose-Headers."
        yield Finding(Level.FAIL, "cors", message, "nginx: remove proxy_hide_header, and add no such header in a proxy")
    else:
        yield Finding(Level.OK, "cors", f"Pages at {measured.origin} may use it.")


def _barred(origin: str, watched: Watched, what: str) -> str:
    allowed = watched.headers.get("access-control-allow-origin")
    if watched.status not in (200, 204):
        return f"{what} {_broken(watched)}"
    if allowed is None:
        return f"{what} has no Access-Control-Allow-Origin"
    if "," in allowed:
        return f"{what} has more than one Access-Control-Allow-Origin, so a proxy adds one"
    if allowed not in ("*", origin):
        return f"{what} has Access-Control-Allow-Origin: {allowed}"
    return ""


def _cookies(measured: Measurements) -> Iterator[Finding]:
    if "set-cookie" in measured.get.headers and measured.origin is not None:
        message = "A proxy sets a cookie, and pages of another origin do not send it back."
        yield Finding(Level.WARN, "cookies", message, "Do without: the service needs none, and no sticky sessions")
    elif "cookie" not in measured.report.received:
        message = "Cookies do not arrive at the service. It needs none itself."
        yield Finding(Level.WARN, "cookies", message, "Let them through if what is in front of the service needs them")
    else:
        yield Finding(Level.OK, "cookies", "Cookies get through; the service needs none.")


def _broken(watched: Watched) -> str:
    """What went wrong with a request, as the end of a sentence; empty if nothing did."""
    if watched.status == 0:
        return f"gets no answer: {watched.trouble}"
    if watched.status != 200:
        return f"is answered with {watched.status}"
    if not watched.whole:
        return f"is cut off after {watched.over:.1f} s"
    return "" if watched.report else "is answered by something else than the service"


def _names(names: list[str]) -> str:
    """Headers as they are usually written."""
    return ", ".join(names).title().replace("Event-Id", "Event-ID")


def _split(value: str) -> set[str]:
    return {name.strip().lower() for name in value.split(",") if name.strip()}
