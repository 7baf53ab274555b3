"""A receiver of traces, OTLP over HTTP, in a process of its own.

    python -m tests.live.otlp FILE

Prints its URL. FILE gets a line of JSON for every request: what it came with, its body, and the spans in it.
"""

import asyncio
import base64
import json
import sys
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from tests.live.service import PATIENCE, ROOT


@dataclass(frozen=True, slots=True)
class Span:
    """``kind`` and ``status`` are as the protocol numbers them: 1 internal, 3 client; 2 is an error."""

    id: str
    parent: str
    trace: str
    state: str
    name: str
    kind: int
    status: int
    attributes: dict[str, Any]
    events: list[Any]
    resource: dict[str, Any]


class Receiver:
    """The process while the ``async with`` block lasts."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "otlp"
        self.url = ""

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-m", __name__, str(self.file)]
        self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            self.url = (await self._process.stdout.readline()).decode().strip()
        assert self.url
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        await self._process.communicate()

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    @property
    def bytes(self) -> bytes:
        """All that was sent."""
        return b"".join(base64.b64decode(request["body"]) for request in self.requests)

    def spans(self, run_id: str) -> list[Span]:
        """Those of a run, in the order in which they began."""
        spans = [span for request in self.requests for span in request["spans"]]
        spans.sort(key=lambda span: span.pop("start"))
        return [Span(**span) for span in spans if span["attributes"]["run_id"] == run_id]


def plain(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def members(attributes: Any) -> dict[str, object]:
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: plain(pair.value) for pair in pairs}


def described(span: ProtoSpan, resource: dict[str, object]) -> dict[str, object]:
    assert not span.status.message
    return {
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "trace": span.trace_id.hex(),
        "state": span.trace_state,
        "name": span.name,
        "kind": int(span.kind),
        "status": int(span.status.code),
        "attributes": members(span.attributes),
        "events": [[event.name, members(event.attributes)] for event in span.events],
        "resource": resource,
        "start": span.start_time_unix_nano,
    }


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        spans = [
            described(span, members(of_resource.resource.attributes))
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = {"path": self.path, "headers": headers, "body": base64.b64encode(body).decode(), "spans": spans}
        with Path(sys.argv[1]).open("a") as file:
            file.write(json.dumps(told) + "\n")
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
