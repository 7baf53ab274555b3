"""When there is a tracer, and what it is told by the settings. What it tells of runs: tests/test_tracing.py."""

import logging
import sys
import threading
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind

from chat.tracing import NO_TRACER
from composition import tracer_of
from handlers import tracing
from handlers.tracing import OpenTelemetryTracer
from server import VERSION
from tests.patience import PATIENCE
from tests.scripted import STOP, ScriptedModel, engine_on, everything, message
from tests.serving import settings_in

ENDPOINT = "http://127.0.0.1:9"


class Exporter:
    """Takes the real one's place: nothing leaves the process."""

    def __init__(self, endpoint: str, headers: dict[str, str]) -> None:
        self.endpoint = endpoint
        self.headers = headers
        self.spans: list[ReadableSpan] = []
        made.append(self)

    def export(self, spans: list[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        assert may_end.wait(PATIENCE)


made: list[Exporter] = []
may_end = threading.Event()


@pytest.fixture(autouse=True)
def _exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    may_end.set()
    monkeypatch.setattr(tracing, "OTLPSpanExporter", Exporter)


async def resource_of(folder: Path, **settings: str) -> Resource:
    """What its spans say of the service."""
    traced = settings_in(folder, otel_exporter_otlp_endpoint=ENDPOINT, **settings)
    async with tracer_of(traced, version=VERSION) as tracer:
        assert isinstance(tracer, OpenTelemetryTracer)
        span = tracer.start("any", {}, None, SpanKind.INTERNAL)
        assert isinstance(span, Span)
        span.end()
    [exporter] = made
    assert [ended.name for ended in exporter.spans] == ["any"]
    return span.resource


async def test_without_an_endpoint_nothing_is_traced(tmp_path: Path) -> None:
    async with tracer_of(settings_in(tmp_path), version=VERSION) as tracer:
        assert tracer is NO_TRACER
    assert made == []


async def test_endpoint_without_its_packages_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "handlers.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with caplog.at_level(logging.WARNING):
        async with tracer_of(settings_in(tmp_path, otel_exporter_otlp_endpoint=ENDPOINT), version=VERSION) as tracer:
            assert tracer is NO_TRACER
    assert caplog.messages == [
        "No traces: opentelemetry is missing. Install it: ./scripts/install.sh requirements-otel.txt"
    ]


async def test_service_is_named_by_its_setting_unless_opentelemetry_is_told_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    about = (await resource_of(tmp_path, service_name="town-hall")).attributes
    assert (about["service.name"], about["service.version"]) == ("town-hall", "0.1.0")
    made.clear()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    assert (await resource_of(tmp_path)).attributes["service.name"] == "other"


async def test_headers_are_decoded(tmp_path: Path) -> None:
    await resource_of(tmp_path, otel_exporter_otlp_headers="authorization=Basic%20a=b, x-tenant=town")
    assert made[0].endpoint == f"{ENDPOINT}/v1/traces"
    assert made[0].headers == {"authorization": "Basic a=b", "x-tenant": "town"}


async def test_shutdown_gives_up_on_a_receiver_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.01)
    may_end.clear()
    try:
        await resource_of(tmp_path)
    finally:
        may_end.set()
    assert caplog.messages == ["the last spans could not be sent in time"]


async def test_opentelemetry_can_be_switched_off_by_its_own_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    model, settings = ScriptedModel(["Hi ", STOP]), settings_in(tmp_path, otel_exporter_otlp_endpoint=ENDPOINT)
    async with (
        tracer_of(settings, version=VERSION) as tracer,
        engine_on(tmp_path / "chat.db", model, tracer=tracer) as engine,
    ):
        await everything(engine, (await engine.start(message())).run.id)
    [exporter] = made
    assert exporter.spans == []
