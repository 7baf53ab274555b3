"""The doctor looks through real proxies, each with one thing wrong, and finds that and nothing else."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from chat.texts import without_password
from doctor.command import main
from doctor.judgement import Finding, Level, judge
from doctor.probe import Target, UnreachableError, examine
from tests.listener import Listener
from tests.live.conftest import Serve
from tests.live.proxies import certificate, haproxy, nginx, ports_of
from tests.live.service import ROOT, Service, free_port

ORIGIN = "http://localhost:3000"
"""One that the service allows by default."""

GOOD = "proxy_http_version 1.1; proxy_buffering off; client_max_body_size 2m;"
GZIP = "gzip on; gzip_types text/event-stream; gzip_proxied any;"
HIDDEN = "proxy_hide_header"

Found = set[tuple[str, str]]

NGINX: Mapping[str, tuple[str, Found]] = {
    "nothing wrong": (GOOD, set()),
    "HTTP/1.0": ("client_max_body_size 2m;", {("WARN", "http")}),
    "compresses": (GOOD + GZIP, {("WARN", "compression")}),
    "compresses and gathers": (
        f"proxy_http_version 1.1; client_max_body_size 2m; proxy_ignore_headers X-Accel-Buffering; {GZIP}",
        {("FAIL", "compression")},
    ),
    "cuts off": (f"{GOOD} proxy_read_timeout 2s;", {("FAIL", "idle")}),
    "drops the cursor": (f'{GOOD} proxy_set_header Last-Event-ID "";', {("FAIL", "resume")}),
    "drops the key": (f'{GOOD} proxy_set_header Idempotency-Key "";', {("FAIL", "request-headers")}),
    "drops the session": (f'{GOOD} proxy_set_header X-Session-Id "";', {("FAIL", "request-headers")}),
    "drops cookies": (f'{GOOD} proxy_set_header Cookie "";', {("WARN", "cookies")}),
    "sets a cookie": (f"{GOOD} add_header Set-Cookie route=1;", {("WARN", "cookies")}),
    "hides the run": (f"{GOOD} {HIDDEN} X-Run-Id;", {("FAIL", "response-headers")}),
    "hides Cache-Control": (f"{GOOD} {HIDDEN} Cache-Control;", {("FAIL", "response-headers")}),
    "changes Cache-Control": (
        f"{GOOD} {HIDDEN} Cache-Control; add_header Cache-Control public;",
        {("FAIL", "response-headers")},
    ),
    "changes the type": (
        f"{GOOD} {HIDDEN} Content-Type; add_header Content-Type text/plain;",
        {("FAIL", "response-headers")},
    ),
    "hides leave": (f"{GOOD} {HIDDEN} Access-Control-Allow-Origin;", {("FAIL", "cors")}),
    "gives leave twice": (f"{GOOD} add_header Access-Control-Allow-Origin *;", {("FAIL", "cors")}),
    "hides what may be read": (f"{GOOD} {HIDDEN} Access-Control-Expose-Headers;", {("FAIL", "cors")}),
    "refuses POST": (f"{GOOD} if ($request_method = POST) {{ return 405; }}", {("FAIL", "post")}),
    "refuses preflights": (f"{GOOD} if ($request_method = OPTIONS) {{ return 405; }}", {("FAIL", "cors")}),
    "limits bodies": ("proxy_http_version 1.1; proxy_buffering off;", {("WARN", "body")}),
}
"""What a location says besides where the service is, and what is to be found."""

HAPROXY: Mapping[str, tuple[str, Found]] = {
    "nothing wrong": ("option http-no-delay\n timeout server 1m", set()),
    "waits for more": ("timeout server 1m", {("WARN", "delay")}),
    "cuts off": ("option http-no-delay\n timeout server 2s", {("FAIL", "idle")}),
}

ORIGIN_WANTED = "argument --origin: use one such as https://www.example.org, without a path"

OTHER_VERSION = "This doctor does not understand /doctor/stream there: use the one of its version."

PLAIN = {("WARN", "connections")}
"""What is said wherever there is no HTTP/2."""


async def findings(url: str, **arguments: object) -> list[Finding]:
    return judge(await examine(Target(url, **{"origin": ORIGIN, "idle": 1.0} | arguments)))  # type: ignore[arg-type]


def wrong(found: list[Finding]) -> Found:
    return {(finding.level.value, finding.check) for finding in found if finding.level is not Level.OK}


def server(port: int, inside: str) -> str:
    return f"server {{ listen 127.0.0.1:{port}; {inside} }}\n"


async def examined(cases: Mapping[str, tuple[str, Found]], ports: list[int]) -> dict[str, Found]:
    """All at once: the doctor waits most of the time."""
    found = await asyncio.gather(*[findings(f"http://127.0.0.1:{port}", idle=3.0) for port in ports])
    return {name: wrong(findings) for name, findings in zip(cases, found, strict=True)}


async def test_nginx(service: Service, tmp_path: Path) -> None:
    ports = ports_of(len(NGINX))
    locations = [f"location / {{ proxy_pass {service.url}; {inside} }}" for inside, _ in NGINX.values()]
    servers = "".join(map(server, ports, locations))
    async with nginx(tmp_path, servers, *ports):
        found = await examined(NGINX, ports)
    assert found == {name: expected | PLAIN for name, (_, expected) in NGINX.items()}


async def test_haproxy(service: Service, tmp_path: Path) -> None:
    ports = ports_of(len(HAPROXY))
    sections = [
        f"defaults d{port}\n mode http\n timeout connect 5s\n timeout client 1m\n {inside}\n"
        f"listen l{port} from d{port}\n bind 127.0.0.1:{port}\n server parley 127.0.0.1:{service.port}\n"
        for port, (inside, _) in zip(ports, HAPROXY.values(), strict=True)
    ]
    async with haproxy(tmp_path, "".join(sections), *ports):
        found = await examined(HAPROXY, ports)
    assert found == {name: expected | PLAIN for name, (_, expected) in HAPROXY.items()}


async def test_second_nginx_that_does_not_see_what_the_first_one_used_up(service: Service, tmp_path: Path) -> None:
    inner, outer = ports_of(2)
    servers = server(inner, f"location / {{ proxy_pass {service.url}; {GOOD} }}")
    servers += server(outer, f"location / {{ proxy_pass http://127.0.0.1:{inner}; client_max_body_size 2m; }}")
    async with nginx(tmp_path, servers, inner, outer):
        found = await findings(f"http://127.0.0.1:{outer}")
    assert wrong(found) == PLAIN | {("FAIL", "buffering")}


async def test_pings_keep_a_stream_open_that_would_be_cut_off(serve: Serve, tmp_path: Path) -> None:
    service, port = await serve(PING_SECONDS="0.25"), free_port()
    inside = server(port, f"location / {{ proxy_pass {service.url}; {GOOD} proxy_read_timeout 2s; }}")
    async with nginx(tmp_path, inside, port):
        found = await findings(f"http://127.0.0.1:{port}", idle=3.0)
    assert wrong(found) == PLAIN
    [idle] = [finding.message for finding in found if finding.check == "idle"]
    assert re.fullmatch(
        r"A silent stream is cut off after \d+\.\d s; the service's pings, every 0.25 s, keep it open.", idle
    )


async def test_certificate_is_trusted_only_if_somebody_says_so(service: Service, tmp_path: Path) -> None:
    port, own = free_port(), await certificate(tmp_path)
    tls = f"ssl_certificate {own.certificate}; ssl_certificate_key {own.key};"
    inside = f"server {{ listen 127.0.0.1:{port} ssl; {tls} location / {{ proxy_pass {service.url}; {GOOD} }} }}"
    async with nginx(tmp_path, inside, port):
        with pytest.raises(UnreachableError, match=r"Its certificate is not trusted here: give .* with --ca FILE"):
            await findings(f"https://127.0.0.1:{port}")
        found = await findings(f"https://127.0.0.1:{port}", insecure=True)
    assert wrong(found) == PLAIN
    [connections] = [finding.message for finding in found if finding.check == "connections"]
    assert connections.startswith("HTTP/2 is not spoken: ")


async def test_service_below_a_path(service: Service, tmp_path: Path) -> None:
    port = free_port()
    inside = (
        f"location /right/ {{ proxy_pass {service.url}/; {GOOD} }} location /wrong/ {{ proxy_pass {service.url}; }}"
    )
    async with nginx(tmp_path, server(port, inside), port):
        assert wrong(await findings(f"http://127.0.0.1:{port}/right/")) == PLAIN
        with pytest.raises(UnreachableError, match=r"A Parley answers, but not as if its paths began at .*/wrong"):
            await findings(f"http://127.0.0.1:{port}/wrong")
        with pytest.raises(UnreachableError, match=r"No Parley answers there \(404\)"):
            await findings(f"http://127.0.0.1:{port}/nowhere")


async def test_headers_that_a_proxy_wants_are_sent(service: Service, tmp_path: Path) -> None:
    port = free_port()
    guard = 'if ($http_authorization != "Bearer sesame") { return 401; }'
    inside = server(port, f"location / {{ {guard} proxy_pass {service.url}; {GOOD} }}")
    async with nginx(tmp_path, inside, port):
        with pytest.raises(UnreachableError, match=r"asks who you are \(401\): give what it wants with --header"):
            await findings(f"http://127.0.0.1:{port}")
        let_in = {"headers": {"Authorization": "Bearer sesame"}}
        assert wrong(await findings(f"http://127.0.0.1:{port}", origin=None, **let_in)) == PLAIN
        barred = {("FAIL", "cors")}  # browsers send no such header with a preflight
        assert wrong(await findings(f"http://127.0.0.1:{port}", **let_in)) == PLAIN | barred


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("location / { return 200 hello; }", "No Parley answers there (200)"),
        ("location / { return 301 https://chat.example.org$request_uri; }", "give that address: https://chat.example."),
        ("location / { proxy_pass http://127.0.0.1:1; }", "A proxy answers, but does not reach the service (502)."),
        (
            "location / { proxy_pass $service; } location /doctor/ { proxy_pass $service/nothing/; }",
            "Its Parley is too old (0.1.0)",
        ),
        (
            "location / { proxy_pass $service; } location /doctor/ { return 404; }",
            "Parley 0.1.0 answers, but a proxy keeps /doctor/stream from it (404)",
        ),
        ("""location / { return 200 '{"status": "healthy"}'; }""", "No Parley answers there (200)"),
        (r"location / { return 200 'event: doctor.report\ndata: null\n\n'; }", OTHER_VERSION),
        (r"location / { return 200 'event: doctor.report\ndata: {}\n\n'; }", OTHER_VERSION),
        (r"location / { return 200 'event: doctor.event\ndata: one\n\n'; }", OTHER_VERSION),
        (
            r"location / { return 200 'event: doctor.event\ndata: {\"number\": 1e999}\n\n'; }",
            OTHER_VERSION,
        ),
    ],
)
async def test_what_is_no_service_that_can_be_looked_at(
    service: Service, tmp_path: Path, inside: str, said: str
) -> None:
    port = free_port()
    async with nginx(tmp_path, server(port, inside.replace("$service", service.url)), port):
        with pytest.raises(UnreachableError) as refused:
            await findings(f"http://127.0.0.1:{port}")
    assert said in str(refused.value)


# --- the command


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
sys.argv = ["server.py", "doctor", sys.argv[1]]
from server import main
main()
"""


async def command(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "server.py"), "doctor", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_command_says_what_it_found_and_how_bad_it_is(service: Service, tmp_path: Path) -> None:
    port = free_port()
    bad = f'location / {{ proxy_pass {service.url}; {GOOD} proxy_set_header Last-Event-ID ""; }}'
    async with nginx(tmp_path, server(port, bad), port):
        through = f"http://127.0.0.1:{port}"
        direct, behind, listed = await asyncio.gather(
            command(service.url, "--idle", "1"),
            command(through, "--idle", "1"),
            command(through, "--idle", "1", "--json", "--origin", ORIGIN, "--header", "X-Any: thing"),
        )
    status, out, err = direct
    assert (status, err) == (0, f"Looking at {service.url}, for about 11 s: --idle sets the longest silence.\n")
    first, *lines = out.splitlines()
    assert first == f"parley (Parley 0.1.0) answers at {service.url}."
    assert lines[0] == "OK    buffering: 6 events came one by one, as they were sent."
    assert len(lines) == 12
    assert {line.partition(":")[0] for line in lines if not line.startswith("OK ")} == {"WARN  connections"}
    assert behind[0] == 1
    assert (
        "\nFAIL  resume: Last-Event-ID does not arrive at the service: a client that reconnects begins anew. "
        'nginx: remove proxy_set_header Last-Event-ID ""; elsewhere: let it through.\n'
    ) in behind[1]
    status, out, err = listed
    told = json.loads(out)
    assert (status, err, told["url"], told["version"]) == (1, "", through, "0.1.0")
    assert [finding["check"] for finding in told["findings"] if finding["level"] == "FAIL"] == ["resume"]


async def test_origin_is_what_browsers_send_however_it_is_written(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    written = [service.url, "--idle", "1", "--origin", "HTTP://LocalHost:3000/"]
    assert await asyncio.to_thread(main, written) == 0
    assert f"OK    cors: Pages at {ORIGIN} may use it.\n" in capsys.readouterr().out


async def test_command_that_is_interrupted_ends_without_a_traceback(service: Service) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INTERRUPTIBLE, service.url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stderr is not None
    assert (await process.stderr.readline()).startswith(b"Looking at ")
    process.send_signal(signal.SIGINT)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 130


def unreachable(service: Service) -> Iterator[tuple[list[str], str]]:
    tls = service.url.replace("http:", "https:")
    yield [f"http://127.0.0.1:{free_port()}"], "Nothing answers there ("
    yield ["127.0.0.1:8000"], "That is no address: give one such as https://chat.example.org."
    yield [service.url.rpartition(":")[0] + ":65536"], "That is no address:"
    yield [f"{service.url}/?q=1"], "That is no address:"
    yield [f"{service.url}/#top"], "That is no address:"
    yield [tls], "TLS fails there; does it speak http:// only?"
    yield ["http://no.invalid"], "Nothing answers there ("


async def test_command_says_why_nothing_can_be_looked_at(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in unreachable(service):
        assert await asyncio.to_thread(main, arguments) == 2
        out, _ = capsys.readouterr()
        assert out.startswith(f"FAIL  {arguments[0]}: {said}")
        assert await asyncio.to_thread(main, [*arguments, "--json"]) == 2
        out, err = capsys.readouterr()
        assert (err, json.loads(out)["error"].startswith(said)) == ("", True)


class Titled(Listener):
    """Takes itself for a Parley, and its version for the title of the terminal's window."""

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"status": "healthy", "version": "1\x1b]0;b\x07"}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        writer.close()


async def test_nothing_that_is_answered_reaches_the_terminal_unseen(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await serve(SERVICE_NAME="par\x1b[2J\u202eley")
    assert await asyncio.to_thread(main, [service.url, "--idle", "1"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith(r"par\x1b[2J\u202eley (Parley ")
    assert all(line.isprintable() for line in out.splitlines())
    async with Titled() as titled:
        assert await asyncio.to_thread(main, [titled.url]) == 2
    assert r"Parley 1\x1b]0;b\x07 answers, but" in capsys.readouterr().out


async def test_password_in_the_address_is_used_and_not_shown(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    url, shown = (service.url.replace("//", f"//{who}@") for who in ("ann:hush", "***"))
    for arguments, status in (([url], 0), ([f"{url}/chat"], 2), (["http://ann:hush@no.invalid"], 2)):
        for more in ([], ["--json"]):
            assert await asyncio.to_thread(main, [*arguments, "--idle", "1", *more]) == status
            out, err = capsys.readouterr()
            assert "hush" not in out + err
            assert shown in out or "***@no.invalid" in out


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("https://chat.example.org/a", "https://chat.example.org/a"),
        ("http://localhost:8000/@ann", "http://localhost:8000/@ann"),
        ("HTTPS://ann:hush@example.org:443/@a", "HTTPS://***@example.org:443/@a"),
        ("https://hush@example.org", "https://***@example.org"),
        ("https://ann:hu@sh@example.org", "https://***@example.org"),
        ("https://ann:hu/sh@example.org", "https://***@example.org"),
        ("https://ann:hu#s?h@example.org", "https://***@example.org"),
        ("ann:hush@example.org", "***@example.org"),
    ],
)
def test_addresses_are_shown_without_who_asks(written: str, shown: str) -> None:
    assert without_password(written) == shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: URL"),
        (["http://x", "--idle", "0"], "argument --idle: use 1 to 300"),
        (["http://x", "--idle", "long"], "argument --idle: use 1 to 300"),
        (["http://x", "--idle", "nan"], "argument --idle: use 1 to 300"),
        (["http://x", "--origin", "example.org"], ORIGIN_WANTED),
        (["http://x", "--origin", "https://example.org/page"], ORIGIN_WANTED),
        (["http://x", "--origin", "https://exämple.org"], ORIGIN_WANTED),
        (["http://x", "--origin", "https://example.org\nX: a"], ORIGIN_WANTED),
        (["http://x", "--header", "A name: value"], "argument --header: use 'Name: value'"),
        (["http://x", "--header", "nonsense"], "argument --header: use 'Name: value'"),
        (["http://x", "--header", "X: a\nb"], "argument --header: use 'Name: value'"),
        (["http://x", "--ca", "/nowhere.pem"], "argument --ca: /nowhere.pem: No such file or directory"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
