"""Whose trace a run belongs to: W3C Trace Context, with the real tracer, whose spans stay in memory."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, format_span_id, format_trace_id, use_span

from chat.commands import OnBusy
from chat.tracing import NO_TRACER, Headers
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, engine_on, message
from tests.shop import log_of
from tests.test_tracing import Traces

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"


@pytest.fixture
def traces() -> Traces:
    return Traces()


def sent(*parents: str, state: Sequence[str] = ()) -> Headers:
    """The headers of a request."""
    headers = {"traceparent": list(parents), "tracestate": list(state)}
    return headers.__getitem__


def origin(span: ReadableSpan) -> tuple[str, str]:
    """The trace that a span belongs to, and its parent."""
    assert span.context
    assert span.parent
    return format_trace_id(span.context.trace_id), format_span_id(span.parent.span_id)


async def test_run_belongs_to_the_span_that_asked_for_it(file: Path, traces: Traces) -> None:
    trace = traces.tracer.carried(sent(PARENT, state=["town=hall", "other=1"]))
    async with engine_on(file, ScriptedModel(["Hi ", STOP]), tracer=traces.tracer) as engine:
        await log_of(engine, (await engine.start(message(trace=trace))).run)
    [run] = traces.named("invoke_agent")
    assert origin(run) == (TRACE, CALLER)
    for span in traces.spans:
        assert span.context
        assert format_trace_id(span.context.trace_id) == TRACE
        assert span.context.trace_state.to_header() == "town=hall,other=1"


@pytest.mark.parametrize(
    "headers",
    [
        sent(),
        sent(""),
        sent("canary"),
        sent(PARENT, PARENT),
        sent(f"00-{'0' * 32}-{CALLER}-01"),
        sent(f"00-{TRACE}-{'0' * 16}-01"),
        sent(f"ff-{TRACE}-{CALLER}-01"),
        sent(f"00-{TRACE.upper()}-{CALLER}-01"),
        sent(f"{PARENT}-more"),
        sent("0" * 100_000),
        sent(state=["town=hall"]),
    ],
)
async def test_header_that_names_no_span_is_ignored(traces: Traces, headers: Headers) -> None:
    assert traces.tracer.carried(headers) is None


async def test_state_that_cannot_be_read_is_left_out(traces: Traces) -> None:
    assert traces.tracer.carried(sent(PARENT, state=["canary"])) == traces.tracer.carried(sent(PARENT))


async def test_span_that_the_request_is_handled_in_goes_before_its_headers(traces: Traces) -> None:
    with use_span(NonRecordingSpan(SpanContext(7, 8, is_remote=False))):
        trace = traces.tracer.carried(sent(PARENT))
    assert trace is not None
    assert format_trace_id(7) in trace
    assert TRACE not in trace


async def test_run_that_waits_or_is_taken_over_still_belongs_to_it(file: Path, traces: Traces) -> None:
    trace = traces.tracer.carried(sent(PARENT))
    model = ScriptedModel(["Hi ", asyncio.Event()])
    async with engine_on(file, model, tracer=traces.tracer) as engine:
        first = (await engine.start(message(trace=trace))).run
        waiting = (await engine.start(message("And?", on_busy=OnBusy.QUEUE, trace=trace))).run
        await model.asked(0)
    async with engine_on(file, ScriptedModel(["there", STOP]), tracer=traces.tracer) as engine:
        await soon(engine.result(first.id))
        await log_of(engine, waiting)
    runs = traces.named("invoke_agent")
    assert [(span.attributes or {})["run_id"] for span in runs] == [first.id, first.id, waiting.id]
    assert [origin(span) for span in runs] == [(TRACE, CALLER)] * 3


async def test_caller_who_records_nothing_decides_for_the_run_too(file: Path) -> None:
    traces = Traces(ParentBased(ALWAYS_ON))  # what the library does if nothing else is said
    trace = traces.tracer.carried(sent(f"00-{TRACE}-{CALLER}-00"))
    async with engine_on(file, ScriptedModel(["Hi ", STOP]), tracer=traces.tracer) as engine:
        await log_of(engine, (await engine.start(message(trace=trace))).run)
    assert traces.spans == []


def test_who_traces_nothing_reads_no_header() -> None:
    def never(name: str) -> list[str]:
        raise AssertionError(name)

    assert NO_TRACER.carried(never) is None
