"""What is traced of runs: with the real tracer, whose spans stay in memory."""

import asyncio
import inspect
import re
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import StatusCode

from chat import generation
from chat.commands import OnBusy
from chat.engine import Engine
from chat.errors import ModelError, StoreUnavailableError
from chat.events import ModelSelected, TextDelta, ToolDelta, ToolStarted, Usage
from chat.functions import tool_of
from chat.policy import CrashRecovery, Policy
from chat.ports import Finished, Part
from chat.providers import Target
from chat.sessions import Session
from chat.tools import Toolbox, ToolError
from chat.tracing import NO_SPAN, NO_TRACER, Tracer
from handlers import tracing
from handlers.tracing import OpenTelemetryTracer
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, engine_on, message, unsteady
from tests.shop import CALLS, Shop, log_of, order, started

BUSY = ModelError("upstream_unavailable", "The model is busy: canary.", retryable=True, transient=True)
TARGETS = (Target("scripted", "xai", "grok-scripted"), Target("groq/other", "groq", "other"))


class Traces:
    """A tracer, and the spans that have ended."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._memory = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = OpenTelemetryTracer(provider.get_tracer("tests"), {target.id: target for target in TARGETS})

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order of their ends."""
        return list(self._memory.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> dict[str, object]:
        """The attributes of the only span of this name."""
        [span] = self.named(name)
        return dict(span.attributes or {})


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "FIRST_BACKOFF", 0.001)


async def test_run_step_calls_and_tools_are_spans_of_one_trace(file: Path, traces: Traces) -> None:
    model = ScriptedModel([[*order("bread"), CALLS]], ["Done.", Finished("stop", Usage(20, 9, cached_tokens=4))])
    async with engine_on(file, model, tools=Shop().box, tracer=traces.tracer) as engine:
        await log_of(engine, await started(engine))
    assert [span.name for span in traces.spans] == [
        "chat grok-scripted", "execute_tool order", "step", "chat grok-scripted", "step", "invoke_agent",
    ]  # fmt: skip
    parents = {span.context.span_id: span.name for span in traces.spans if span.context}
    assert [span.parent and parents[span.parent.span_id] for span in traces.spans] == [
        "step", "step", "invoke_agent", "step", "invoke_agent", None,
    ]  # fmt: skip
    assert [span.attributes and span.attributes["step"] for span in traces.named("step")] == [1, 2]
    last = dict(traces.named("chat grok-scripted")[1].attributes or {})
    assert (last["gen_ai.provider.name"], last["gen_ai.request.model"]) == ("x_ai", "grok-scripted")
    assert (last["gen_ai.usage.input_tokens"], last["gen_ai.usage.cache_read.input_tokens"]) == (20, 4)
    assert "gen_ai.response.model" not in last


async def test_run_counts_the_messages_of_its_session(file: Path, traces: Traces) -> None:
    async with engine_on(file, ScriptedModel(["Hi ", STOP]), tracer=traces.tracer) as engine:
        for _ in range(2):
            await log_of(engine, await started(engine))
    runs = [dict(span.attributes or {}) for span in traces.named("invoke_agent")]
    assert [run["message_count"] for run in runs] == [1, 3]
    assert {(run["session_id"], run["user_id"], run["group_id"]) for run in runs} == {("ses_1", "ann", "ann")}


async def test_model_that_answers_for_another_is_named(file: Path, traces: Traces) -> None:
    model = ScriptedModel([[ModelSelected("groq/other", "fallback", "upstream_auth"), TextDelta("Hi")], STOP])
    async with engine_on(file, model, tracer=traces.tracer) as engine:
        await log_of(engine, await started(engine))
    assert traces.one("chat grok-scripted")["gen_ai.response.model"] == "other"


async def test_repeats_are_events_of_one_call(file: Path, traces: Traces) -> None:
    async with engine_on(file, ScriptedModel([BUSY], [BUSY], ["Hi ", STOP]), tracer=traces.tracer) as engine:
        await log_of(engine, await started(engine))
    [chat] = traces.named("chat grok-scripted")
    assert [(event.name, dict(event.attributes or {})) for event in chat.events] == [
        ("attempt_failed", {"error.type": "upstream_unavailable"})
    ] * 2
    assert chat.status.status_code is StatusCode.UNSET


async def test_failure_is_told_by_its_code_alone(file: Path, traces: Traces) -> None:
    policy = Policy(retries=0)
    async with engine_on(file, ScriptedModel([BUSY]), policy, tracer=traces.tracer) as engine:
        await log_of(engine, await started(engine))
    for span in traces.spans:
        assert (span.attributes or {})["error.type"] == "upstream_unavailable"
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert "canary" not in span.to_json()
    assert traces.one("invoke_agent")["outcome"] == "failed"


async def test_defect_is_told_by_its_class_alone(file: Path, traces: Traces) -> None:
    async with engine_on(file, ScriptedModel([ZeroDivisionError("canary")]), tracer=traces.tracer) as engine:
        await log_of(engine, await started(engine))
    assert traces.one("chat grok-scripted")["error.type"] == "ZeroDivisionError"
    assert traces.one("invoke_agent")["error.type"] == "internal"
    assert "canary" not in "".join(span.to_json() for span in traces.spans)


async def test_run_that_is_stopped_is_no_error(file: Path, traces: Traces) -> None:
    model = ScriptedModel(["Hi ", asyncio.Event()])
    async with engine_on(file, model, tracer=traces.tracer) as engine:
        run = await started(engine)
        await model.asked(0)
        await soon(engine.cancel(run.id, "canary"))
    assert [span.name for span in traces.spans] == ["chat grok-scripted", "step", "invoke_agent"]
    assert {(span.attributes or {})["outcome"] for span in traces.spans} == {"cancelled"}
    assert {span.status.status_code for span in traces.spans} == {StatusCode.UNSET}


async def test_run_that_never_had_its_turn_is_one_span(file: Path, traces: Traces, gate: asyncio.Event) -> None:
    async with engine_on(file, ScriptedModel(["Hi ", gate, STOP]), tracer=traces.tracer) as engine:
        await started(engine)
        waiting = (await engine.start(message("And?", on_busy=OnBusy.QUEUE))).run
        await soon(engine.cancel(waiting.id, "user"))
        assert (traces.one("invoke_agent")["run_id"], traces.one("invoke_agent")["outcome"]) == (
            waiting.id,
            "cancelled",
        )


async def test_run_that_goes_on_elsewhere_is_handed_over_and_taken_up_in_another_trace(
    file: Path, traces: Traces
) -> None:
    model = ScriptedModel(["Hi ", asyncio.Event()])
    async with engine_on(file, model, tracer=traces.tracer) as engine:
        run = await started(engine)
        await model.asked(0)
    assert traces.one("invoke_agent")["outcome"] == "handed_over"
    async with engine_on(file, ScriptedModel(["there", STOP]), tracer=traces.tracer) as engine:
        await soon(engine.result(run.id))
    first, second = traces.named("invoke_agent")
    assert (second.attributes or {})["run_id"] == run.id
    assert first.context
    assert second.context
    assert first.context.trace_id != second.context.trace_id


async def test_interrupted_run_is_an_error(file: Path, traces: Traces) -> None:
    async with engine_on(file, model := ScriptedModel(["Hi ", asyncio.Event()])) as engine:
        run = await started(engine)
        await model.asked(0)
        await soon(_shown(engine, run.id))
    policy = Policy(crash_recovery=CrashRecovery.INTERRUPT)
    async with engine_on(file, ScriptedModel(), policy, tracer=traces.tracer) as engine:
        await soon(engine.result(run.id))
    told = traces.one("invoke_agent")
    assert (told["outcome"], told["error.type"]) == ("interrupted", "interrupted")


async def _shown(engine: Engine, run_id: str) -> None:
    follower = await engine.follower(run_id, 0)
    await follower.next()
    follower.close()


def broken(article: str) -> str:
    """Fail in one's own words, or in any."""
    raise {"own": ToolError, "any": ValueError}[article](f"canary: {article}")


@pytest.mark.parametrize(
    ("name", "arguments", "span", "error"),
    [
        ("broken", '{"article": "own"}', "execute_tool broken", "ToolError"),
        ("broken", '{"article": "any"}', "execute_tool broken", "ValueError"),
        ("slow", "{}", "execute_tool slow", "timeout"),
        ("canary", "{}", "execute_tool _OTHER", "unknown_tool"),
    ],
)
async def test_tool_that_fails_is_told_by_what_went_wrong_and_not_by_its_words(
    file: Path, traces: Traces, name: str, arguments: str, span: str, error: str
) -> None:
    async def slow() -> None:
        """Take too long."""
        await asyncio.Event().wait()

    tools = Toolbox([tool_of(broken), tool_of(slow, timeout=0.001)])
    calls: list[Part] = [ToolStarted("call_1", name), ToolDelta("call_1", arguments), CALLS]
    async with engine_on(file, ScriptedModel([calls], ["Oh.", STOP]), tools=tools, tracer=traces.tracer) as engine:
        await log_of(engine, await started(engine))
    assert traces.one(span)["error.type"] == error
    assert traces.one(span)["gen_ai.tool.call.id"] == "call_1"
    assert traces.one("invoke_agent")["outcome"] == "completed"
    assert "canary" not in "".join(span.to_json() for span in traces.spans)


async def test_call_is_timed_from_the_yes_on_and_one_that_is_denied_is_not_made(file: Path, traces: Traces) -> None:
    careful = Toolbox([tool_of(Shop().order, approval=True)])
    model = ScriptedModel([[*order("bread"), *order("wine", "call_2"), CALLS]], ["Done.", STOP])
    async with engine_on(file, model, tools=careful, tracer=traces.tracer) as engine:
        run = await started(engine)
        await soon(_until_asked(engine, run.id))
    assert traces.named("execute_tool order") == []
    # The one who goes on has a step whose model was asked by another.
    async with engine_on(file, ScriptedModel(["Done.", STOP]), tools=careful, tracer=traces.tracer) as engine:
        await engine.approve(run.id, "call_1", approved=True)
        await engine.approve(run.id, "call_2", approved=False)
        await soon(engine.result(run.id))
    assert traces.one("execute_tool order")["gen_ai.tool.call.id"] == "call_1"
    assert [(span.attributes or {})["step"] for span in traces.named("step")] == [1, 1, 2]


async def _until_asked(engine: Engine, run_id: str) -> None:
    follower, seen = await engine.follower(run_id, 0), 0
    while seen < 8:
        batch = await follower.next()
        assert batch is not None
        seen += len(batch.events)
    follower.close()


async def test_store_that_cannot_count_holds_no_run_up(
    file: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(session_id: str) -> Session:
        raise StoreUnavailableError

    async with engine_on(file, ScriptedModel(["Hi ", STOP]), tracer=traces.tracer) as engine:
        monkeypatch.setattr(unsteady(engine), "session", fail)
        await log_of(engine, await started(engine))
    told = traces.one("invoke_agent")
    assert told["outcome"] == "completed"
    assert "message_count" not in told


async def test_session_that_is_gone_is_not_counted(file: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(session_id: str) -> None:
        return None

    async with engine_on(file, ScriptedModel(["Hi ", STOP]), tracer=traces.tracer) as engine:
        monkeypatch.setattr(unsteady(engine), "session", none)
        await log_of(engine, await started(engine))
    assert "message_count" not in traces.one("invoke_agent")


@pytest.mark.parametrize("tracer", [NO_TRACER, Traces(ALWAYS_OFF).tracer], ids=["no tracer", "not sampled"])
async def test_run_that_nobody_looks_at_is_not_counted(
    file: Path, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(session_id: str) -> Session:
        raise AssertionError(session_id)

    async with engine_on(file, ScriptedModel(["Hi ", STOP]), tracer=tracer) as engine:
        monkeypatch.setattr(unsteady(engine), "session", never)
        log = await log_of(engine, await started(engine))
    assert log[0] == TextDelta("Hi ")


def test_span_that_nobody_looks_at_takes_all_that_it_is_told() -> None:
    NO_SPAN.counted(1)
    with NO_SPAN.step(1) as step, step.model_call("scripted") as call:
        call.attempt_failed("upstream_unavailable")
    NO_SPAN.end(None)


def test_names_are_those_of_the_installed_conventions() -> None:
    used = set(re.findall(r'"(gen_ai\.[a-z_.]+)"', inspect.getsource(tracing)))
    assert used
    assert used <= {name for name in vars(gen_ai_attributes).values() if isinstance(name, str)}
    operations = set(re.findall(r'"gen_ai.operation.name": "(\w+)"', inspect.getsource(tracing)))
    assert operations == {"invoke_agent", "chat", "execute_tool"}
    assert operations <= {operation.value for operation in gen_ai_attributes.GenAiOperationNameValues}
    assert set(tracing.PROVIDERS.values()) <= {name.value for name in gen_ai_attributes.GenAiProviderNameValues}
