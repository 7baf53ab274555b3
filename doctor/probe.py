"""Measures a chain of proxies by asking through it. The only file that does."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import httpx

from chat.errors import ModelError
from chat.sse import SSEDecoder
from chat.texts import without_password
from doctor.measurements import Arrival, Measurements, Report, Silence, Watched

EVENTS = 6
INTERVAL = 0.3
"""Seconds between events: more than the 0.2 for which haproxy holds each of them back."""

SEEN = 3
"""The event behind which a stream is left, and is to go on."""

SILENCES = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds: below and at what proxies cut off by default."""

ROUNDS = 2
"""A machine that is busy can spoil a measurement; a proxy spoils it again."""

LONGEST_BODY = 8 * 2**20
"""Bytes that are sent to see whether a large body arrives."""

MOST = 2**53
"""Above any number that a service may say of itself."""

PATIENCE = 20.0
"""Seconds that anything may take longer than it should."""

UNHURRIED = httpx.Timeout(PATIENCE, read=None)
"""Of a stream, which may be silent for longer; it has a limit as a whole."""

ASKED = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, deflate"}
"""What browsers send, of the codings those that can be undone here."""

CARRIED = {
    "Content-Type": "application/json",
    "Idempotency-Key": "doctor",
    "Prefer": "respond-async",
    "X-Session-Id": "doctor",
}


OTHER_VERSION = "This doctor does not understand /doctor/stream there: use the one of its version."

NO_ADDRESS = "That is no address: give one such as https://chat.example.org."


class UnreachableError(Exception):
    """Nothing can be measured. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """``url``: where the service's paths begin. ``headers`` go with every request. ``idle``: the longest silence, s.

    ``ca``: a file of certificates to trust; ``insecure`` trusts any.
    """

    url: str
    origin: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    idle: float = 45.0
    ca: str | None = None
    insecure: bool = False

    def tls(self) -> ssl.SSLContext:
        """A new one: what it offers to speak is a part of it.

        Raises:
            OSError: ``ca`` cannot be read, or has no certificates.
        """
        tls = ssl.create_default_context(cafile=self.ca)
        if self.insecure:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        return tls


async def examine(target: Target) -> Measurements:
    """Everything, in about ``target.idle`` + 10 seconds.

    Raises:
        UnreachableError: there is no service to be measured.
    """
    if not _is_address(target.url):
        raise UnreachableError(NO_ADDRESS)
    async with _client(target) as client:
        prober = Prober(client, target)
        report = await prober.reach()
        floor = min([(await prober.watch("GET", events=0)).over for _ in range(3)])
        get = await prober.paced("GET", floor)
        post = await prober.paced("POST", floor)
        silences = [asyncio.create_task(prober.silence(seconds, pings=False)) for seconds in _silences(target.idle)]
        silences.append(asyncio.create_task(prober.silence(target.idle, pings=True)))
        try:
            size = min(report.body_limit, LONGEST_BODY)
            return Measurements(
                url=target.url,
                report=report,
                floor=floor,
                get=get,
                post=post,
                resumed=await prober.resumed(),
                seen=SEEN,
                full=await prober.watch("POST", events=0, content=b"0" * size),
                full_bytes=size,
                protocol=await _protocol(target),
                origin=target.origin,
                preflight=await prober.preflight(target.origin) if target.origin else None,
                silences=tuple(await asyncio.gather(*silences)),
            )
        finally:
            for task in silences:
                task.cancel()


class Prober:
    """Asks one service, over and over."""

    def __init__(self, client: httpx.AsyncClient, target: Target) -> None:
        self._client = client
        self._url = f"{target.url.rstrip('/')}/doctor/stream"
        self._headers = {**ASKED, **target.headers, **({"Origin": target.origin} if target.origin else {})}
        self._headers["Cookie"] = "; ".join(filter(None, (target.headers.get("Cookie"), "parley-doctor=1")))

    async def reach(self) -> Report:
        """What the service says of itself.

        Raises:
            UnreachableError: there is none, or it is too old.
        """
        watched = await self.watch("GET", events=0)
        if watched.report is not None:
            return watched.report
        raise UnreachableError(await self._refused(watched) if watched.status else watched.trouble)

    async def paced(self, method: str, floor: float) -> Watched:
        """Events at even distances. Once more if they did not come as they should."""
        content = b"{}" if method == "POST" else None
        for _ in range(ROUNDS):
            watched = await self.watch(method, events=EVENTS, interval=INTERVAL, silence=INTERVAL, content=content)
            if watched.in_time(floor):
                break
        return watched

    async def silence(self, seconds: float, *, pings: bool) -> Silence:
        watched = await self.watch("GET", events=0, silence=seconds, pings=pings)
        cut = None if watched.whole and watched.status == 200 else watched.over - watched.last
        return Silence(seconds=seconds, pings=pings, cut=cut if not pings or cut is None else watched.over)

    async def resumed(self) -> Watched:
        """A stream that is left behind event ``SEEN``, and what comes when it is asked for again."""
        await self.watch("GET", events=SEEN + 2, interval=0.05, leave_after=SEEN)
        return await self.watch("GET", events=SEEN + 2, interval=0.05, after=SEEN)

    async def preflight(self, origin: str) -> Watched:
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": ",".join(sorted(name.lower() for name in (*CARRIED, "Last-Event-ID"))),
        }
        try:
            response = await self._client.options(self._url, headers=asked)
        except httpx.HTTPError as error:
            return Watched(status=0, trouble=_why(error))
        return Watched(status=response.status_code, headers=_lowered(response.headers))

    async def watch(
        self,
        method: str,
        *,
        events: int,
        interval: float = 0.0,
        silence: float = 0.0,
        pings: bool = True,
        after: int = 0,
        content: bytes | None = None,
        leave_after: int | None = None,
    ) -> Watched:
        """Ask for a stream and watch it to its end, or leave it behind an event.

        Raises:
            UnreachableError: its events are none that are known here.
        """
        headers = {**self._headers, **(CARRIED if method == "POST" else {})}
        if after:
            headers["Last-Event-ID"] = f"doctor.{after}"
        params: dict[str, str | float] = {
            "events": events,
            "interval": interval,
            "silence": silence,
            "pings": str(pings).lower(),
        }
        began = time.monotonic()
        watching = _Watching(began, leave_after)
        try:
            async with asyncio.timeout(events * interval + silence + PATIENCE):
                request = self._client.build_request(
                    method, self._url, params=params, headers=headers, content=content, timeout=UNHURRIED
                )
                response = await self._client.send(request, stream=True)
                try:
                    watching.status(response)
                    async for data in response.aiter_bytes():
                        if watching.enough(data):
                            break
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            watching.trouble = _why(error)
        return watching.seen()

    async def _refused(self, watched: Watched) -> str:
        """Why what was answered is no stream of the doctor's."""
        status, url = watched.status, self._url.removesuffix("/doctor/stream")
        shown = without_password(url)
        if 300 <= status < 400:
            return f"It sends elsewhere ({status}): give that address: {watched.headers.get('location', 'none')}."
        if status in (401, 403, 407):
            return f"It asks who you are ({status}): give what it wants with --header 'Name: value'."
        if status in (502, 503, 504):
            return f"A proxy answers, but does not reach the service ({status}). Is the service running?"
        version = await self._version(url)
        problem = watched.headers.get("content-type", "").startswith("application/problem+json")
        if status == 404 and problem and version:
            return f"Its Parley is too old ({version}): the service must have /doctor/stream, too."
        if status == 404 and problem:
            return f"A Parley answers, but not as if its paths began at {shown}: look at the proxy's path prefix."
        if version:
            return f"Parley {version} answers, but a proxy keeps /doctor/stream from it ({status}): let that through."
        return f"No Parley answers there ({status}): the address, or its path, is wrong."

    async def _version(self, url: str) -> str | None:
        try:
            health = (await self._client.get(f"{url}/health", headers=self._headers)).json()
        except (httpx.HTTPError, ValueError, RecursionError):
            return None
        known = isinstance(health, dict) and health.get("status") == "healthy"
        return str(health["version"]) if known and "version" in health else None


class _Watching:
    """What has been seen of a stream so far."""

    def __init__(self, began: float, leave_after: int | None) -> None:
        self._began = began
        self._leave_after = leave_after
        self._decoder = SSEDecoder()
        self._seen = Watched(status=0, whole=False)
        self._arrivals: list[Arrival] = []
        self.trouble = ""

    def status(self, response: httpx.Response) -> None:
        headers = _lowered(response.headers)
        self._seen = Watched(
            status=response.status_code, http_version=response.http_version, headers=headers, whole=False
        )

    def enough(self, data: bytes) -> bool:
        """Whether no more is wanted behind these bytes."""
        now = time.monotonic() - self._began
        self._seen = replace(self._seen, last=now)
        try:
            events = list(self._decoder.feed(data))
        except ModelError:
            return True
        for name, value in events:
            try:
                self._take(name, value, now)
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise UnreachableError(OTHER_VERSION) from error
        return self._leave_after is not None and len(self._arrivals) >= self._leave_after

    def _take(self, name: str, value: str, now: float) -> None:
        match name:
            case "doctor.report":
                self._seen = replace(self._seen, report=_report(value))
            case "doctor.event":
                said = json.loads(value)
                self._arrivals.append(Arrival(int(_number(said["number"])), _number(said["after"]), now))
            case "doctor.end":
                self._seen = replace(self._seen, whole=True)

    def seen(self) -> Watched:
        over = time.monotonic() - self._began
        foreign = self._seen.status != 0 and self._seen.report is None and not self.trouble
        whole = self._seen.whole or foreign  # what is none of ours is not cut off either
        return replace(self._seen, arrivals=tuple(self._arrivals), whole=whole, over=over, trouble=self.trouble)


@asynccontextmanager
async def _client(target: Target) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(timeout=PATIENCE, limits=limits, verify=target.tls()) as client:
        yield client


def _is_address(url: str) -> bool:
    """Whether a path can be put behind it."""
    try:
        parts = urlsplit(url)
        reachable = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and reachable and not set(url) & set("?#")


def _silences(idle: float) -> list[float]:
    return [*[seconds for seconds in SILENCES if seconds < idle], idle]


def _report(data: str) -> Report:
    said = json.loads(data)
    return Report(
        service=_text(said["service"]),
        version=_text(said["version"]),
        http_version=_text(said["http_version"]),
        received=frozenset([_text(name) for name in said["received"]]),
        sent=frozenset([_text(name).lower() for name in said["sent"]]),
        body_limit=int(_number(said["body_limit"])),
        ping_seconds=_number(said["ping_seconds"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: object) -> float:
    """From 0 on: what is measured and allowed is never less."""
    if not isinstance(value, int | float) or not 0 <= value < MOST:
        raise ValueError(value)
    return value


def _lowered(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


async def _protocol(target: Target) -> str | None:
    """What the front agrees to speak (ALPN) with a client that offers what browsers do."""
    parts = urlsplit(target.url)
    if parts.scheme != "https":
        return ""
    tls = target.tls()
    tls.set_alpn_protocols(["h2", "http/1.1"])
    try:
        async with asyncio.timeout(PATIENCE):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=tls)
    except (OSError, TimeoutError):
        return None
    agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.transport.abort()
    return agreed or "http/1.1"


def _why(error: Exception) -> str:
    """A failed connection, in plain words."""
    causes: list[BaseException] = [error]
    while (below := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(below)
    text = " ".join(str(cause) for cause in causes)
    match error:
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return NO_ADDRESS
        case httpx.ConnectTimeout() | httpx.PoolTimeout() | TimeoutError():
            return "Nothing answers in time."
        case httpx.ConnectError() if "CERTIFICATE_VERIFY_FAILED" in text:
            return "Its certificate is not trusted here: give its authority's with --ca FILE, or --insecure."
        case httpx.ConnectError() if any(isinstance(cause, ssl.SSLError) for cause in causes):
            return f"TLS fails there; does it speak http:// only? ({causes[-1]})"
        case httpx.ConnectError():
            return f"Nothing answers there ({causes[0]})."
        case _:
            return f"What answers there speaks no HTTP, or goes away ({type(error).__name__}: {error})."
