"""Traces for OpenTelemetry, after its conventions for generative AI. The only file that knows its libraries.

https://github.com/open-telemetry/semantic-conventions-genai/tree/main/docs/gen-ai

They are an extra that need not be installed: only who is to trace imports this file.
"""

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self, TypeAlias
from urllib.parse import unquote

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chat.errors import ChatError
from chat.events import RunFailed, RunInterrupted, Terminal, Usage
from chat.providers import Target
from chat.runs import STATUS_OF, Run
from chat.tracing import Headers

FLUSH_SECONDS = 3.0
"""What the last spans get to reach their receiver when the process stops; one that is away must not hold it up."""

PROVIDERS = {"xai": "x_ai", "gemini": "gcp.gemini", "mistral": "mistral_ai"}
"""The conventions' names of providers, where they are not ours."""

OTHER = "_OTHER"
"""The conventions' word for a name that is not one of a known few."""

CANCELLED = "cancelled"
HANDED_OVER = "handed_over"

_W3C = TraceContextTextMapPropagator()

Attributes: TypeAlias = Mapping[str, str | int | Sequence[str]]

logger = logging.getLogger(__name__)


class OpenTelemetryTracer:
    """A :class:`chat.tracing.Tracer`. ``targets`` are the models by their names here.

    A run belongs to the span that its request was handled in, or else to the one that the request names by W3C Trace
    Context: https://www.w3.org/TR/trace-context/. So it does in whichever process goes on with it.
    """

    def __init__(self, tracer: trace.Tracer, targets: Mapping[str, Target]) -> None:
        self._tracer = tracer
        self._targets = targets

    def carried(self, headers: Headers) -> str | None:
        parents, context = headers("traceparent"), get_current()
        if not trace.get_current_span(context).get_span_context().is_valid and len(parents) == 1:
            context = _W3C.extract({"traceparent": parents, "tracestate": headers("tracestate")})
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, context)
        return json.dumps(carrier) if carrier else None

    def run(self, run: Run) -> "_RunSpan":
        return _RunSpan(self, run)

    def start(self, name: str, attributes: Attributes, parent: Context | None, kind: SpanKind) -> trace.Span:
        # The library would keep the texts of exceptions, which may quote what was said.
        return self._tracer.start_span(
            name, parent, kind, attributes=attributes, record_exception=False, set_status_on_exception=False
        )

    def asked(self, model: str) -> dict[str, str]:
        """What a request for this model is marked with."""
        target = self._targets.get(model, Target(model, OTHER, model))
        return {
            "gen_ai.provider.name": PROVIDERS.get(target.provider, target.provider),
            "gen_ai.request.model": target.name,
        }

    def name_of(self, model: str) -> str:
        """The model's name at its provider."""
        return self.asked(model)["gen_ai.request.model"]


class _RunSpan:
    def __init__(self, tracer: OpenTelemetryTracer, run: Run) -> None:
        self._tracer = tracer
        self._common: dict[str, str | int] = {
            "gen_ai.conversation.id": run.session_id,
            "session_id": run.session_id,
            "user_id": run.user_id,
            "group_id": run.user_id,  # what groups all sessions of a user
            "run_id": run.id,
        }
        operation = {"gen_ai.operation.name": "invoke_agent", "run_kind": run.kind.value}
        about = {**operation, **tracer.asked(run.model), **self._common}
        parent = _W3C.extract(json.loads(run.trace)) if run.trace else None
        self._span = tracer.start("invoke_agent", about, parent, SpanKind.INTERNAL)

    @property
    def recording(self) -> bool:
        return self._span.is_recording()

    def counted(self, messages: int) -> None:
        self._common["message_count"] = messages
        self._span.set_attribute("message_count", messages)

    def step(self, number: int) -> "_StepSpan":
        # The conventions know no step: it is what ties the calls of tools to the call of the model that asked for them.
        parent = trace.set_span_in_context(self._span)
        span = self._tracer.start("step", {"step": number, **self._common}, parent, SpanKind.INTERNAL)
        return _StepSpan(span, self._tracer, self._common)

    def end(self, terminal: Terminal | None) -> None:
        self._span.set_attribute("outcome", HANDED_OVER if terminal is None else STATUS_OF[type(terminal)].value)
        if isinstance(terminal, RunFailed):
            _fail(self._span, terminal.code)
        elif isinstance(terminal, RunInterrupted):
            _fail(self._span, "interrupted")
        if terminal is not None and terminal.usage is not None:
            self._span.set_attributes(_counts(terminal.usage))
        self._span.end()


class _Span:
    """One that lasts as long as its ``with`` block."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._span.set_attribute("outcome", CANCELLED)
        elif isinstance(error, ChatError):
            _fail(self._span, error.code)
        elif error is not None:
            _fail(self._span, type(error).__name__)
        self._span.end()

    def failed(self, code: str) -> None:
        _fail(self._span, code)


class _StepSpan(_Span):
    def __init__(self, span: trace.Span, tracer: OpenTelemetryTracer, common: Attributes) -> None:
        super().__init__(span)
        self._tracer = tracer
        self._common = common
        self._context = trace.set_span_in_context(span)

    def model_call(self, model: str) -> "_ModelSpan":
        about = {"gen_ai.operation.name": "chat", **self._tracer.asked(model), **self._common}
        span = self._tracer.start(f"chat {self._tracer.name_of(model)}", about, self._context, SpanKind.CLIENT)
        return _ModelSpan(span, self._tracer)

    def tool_call(self, call_id: str, name: str | None) -> _Span:
        about = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name or OTHER,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call_id,
            **self._common,
        }
        return _Span(self._tracer.start(f"execute_tool {name or OTHER}", about, self._context, SpanKind.INTERNAL))


class _ModelSpan(_Span):
    def __init__(self, span: trace.Span, tracer: OpenTelemetryTracer) -> None:
        super().__init__(span)
        self._tracer = tracer

    def attempt_failed(self, code: str) -> None:
        # The conventions want one span around all repeats.
        self._span.add_event("attempt_failed", {"error.type": code})

    def answered(self, model: str | None, finish_reason: str, usage: Usage | None) -> None:
        self._span.set_attribute("gen_ai.response.finish_reasons", [finish_reason])
        if model is not None:
            self._span.set_attribute("gen_ai.response.model", self._tracer.name_of(model))
        if usage is not None:
            self._span.set_attributes(_counts(usage))


def _fail(span: trace.Span, code: str) -> None:
    """Without a description: the code says what it was, and is nobody's text."""
    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR)


def _counts(usage: Usage) -> dict[str, str | int]:
    counts: dict[str, str | int] = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "usage_source": usage.source,
    }
    parts = {
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    return counts | {name: count for name, count in parts.items() if count}


@asynccontextmanager
async def exported(
    endpoint: str, headers: str, *, service: str, version: str, targets: Sequence[Target]
) -> AsyncIterator[OpenTelemetryTracer]:
    """A tracer whose spans go to ``endpoint``, a URL that takes OTLP over HTTP, from a thread of its own.

    ``headers`` are ``name=value``, by commas, percent-encoded. Whatever else the library reads from OTEL_* variables,
    such as the sampler and the sizes of queues, counts as it does anywhere; OTEL_SERVICE_NAME goes before ``service``.
    """
    about = {SERVICE_VERSION: version}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        about[SERVICE_NAME] = service
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, headers=_pairs(headers))))
    try:
        yield OpenTelemetryTracer(provider.get_tracer("parley", version), {target.id: target for target in targets})
    finally:
        await _shut_down(provider)


def _pairs(headers: str) -> dict[str, str]:
    pairs = [header.partition("=") for header in headers.split(",") if header.strip()]
    return {unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs}


async def _shut_down(provider: TracerProvider) -> None:
    """Send what is left, for so long. The library takes no deadline, and its own patience is half a minute."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # a loop that has not waited may be closed
            loop.call_soon_threadsafe(done.set)

    # Nobody waits for a daemon, as Python does at its end for the threads of a pool.
    threading.Thread(target=shut_down, name="tracing-shutdown", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await done.wait()
    except TimeoutError:
        logger.warning("the last spans could not be sent in time")
