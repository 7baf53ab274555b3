"""What every response tells a browser not to do with it: a page, JSON, a stream, a mistake of ours."""

from collections.abc import Mapping

from starlette.types import Message, Send

GUARDS: list[tuple[bytes, bytes]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),  # for browsers that do not know frame-ancestors
    # What is no page does nothing where it is opened as one.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # Keeps out <script> and <img>. fetch and EventSource of other origins ask by CORS, which goes its own way:
    # https://fetch.spec.whatwg.org/#cross-origin-resource-policy-header
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""As servers send headers: names in lower case."""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of pages: everything comes from here, and nothing is inline."""

PAGE: Mapping[str, str] = {
    "Content-Security-Policy": CSP,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-cache",
}
"""Of pages and their files."""

# The playground makes markup and code from no text: so the browser may forbid the very attempt.
PLAYGROUND: Mapping[str, str] = {
    **PAGE,
    "Content-Security-Policy": f"{CSP}; require-trusted-types-for 'script'; trusted-types 'none'",
}


def guarded(send: Send) -> Send:
    """``send``, which adds the headers that a response does not have itself."""

    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            said = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(guard for guard in GUARDS if guard[0] not in said)]
        await send(message)

    return send_guarded
