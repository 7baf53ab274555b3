"""Traces as a receiver of OpenTelemetry's protocol gets them from a real process."""

import asyncio
import socket
import time
from pathlib import Path

from tests.live.dialogue import KEY, PROMPT, ask, dialogue, following
from tests.live.otlp import Receiver, Span
from tests.live.service import PATIENCE, Service
from tests.patience import soon
from tests.upstream import calling, chunk, completion, refusal, reply

FEEDBACK = {"feedback": "canary-of-the-arguments", "topic": "canary-of-the-arguments"}
COMMON = {
    "session_id": "one",
    "gen_ai.conversation.id": "one",
    "user_id": "ann",
    "group_id": "ann",
}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "custom", "gen_ai.request.model": "scripted"}
RUN = CHAT | {"gen_ai.operation.name": "invoke_agent", "run_kind": "answer"}
INTERNAL, CLIENT = 1, 3
UNSET, ERROR = 0, 2


def shape(spans: list[Span]) -> list[tuple[str, str]]:
    """Each span's name and its parent's, in the order of their beginnings; all in one trace."""
    names = {span.id: span.name for span in spans} | {"": ""}
    assert len({span.trace for span in spans}) == 1
    return [(span.name, names[span.parent]) for span in spans]


async def test_spans_of_good_failed_and_stopped_runs_reach_a_receiver_without_a_word_that_was_said(
    tmp_path: Path,
) -> None:
    gate = asyncio.Event()
    replies = (
        calling("call_1", "submit_feedback", FEEDBACK),
        completion("canary-of-the-answer"),
        refusal(400, {"error": {"message": "canary-of-the-refusal"}}),
        reply(chunk("canary-of-the-answer"), gate),
    )
    async with Receiver(tmp_path) as receiver:
        settings = {
            "TOOLS": "examples.town_hall",
            "SERVICE_NAME": "town-hall",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=the%20town",
            "OTEL_BSP_SCHEDULE_DELAY": "600000",  # so that all of it is sent at the end, and by the shutdown
        }
        async with dialogue(tmp_path, *replies, **settings) as (service, _):
            good, _ = await ask(service, user_id="ann", session_id="one")
            failed, _ = await ask(service, user_id="ann", session_id="one")
            async with following(service, user_id="ann", session_id="one") as (stream, stopped, _):
                await service.client.post(f"/runs/{stopped}/cancel")
                assert [frame.event async for frame in stream] == ["run.cancelled"]
            [record] = (await service.client.get("/records")).json()["records"]
            log = service.log

        [request] = receiver.requests
        assert (request["path"], request["headers"]["x-tenant"]) == ("/v1/traces", "the town")

        spans = receiver.spans(good)
        assert shape(spans) == [
            ("invoke_agent", ""),
            ("step", "invoke_agent"),
            ("chat scripted", "step"),
            ("execute_tool submit_feedback", "step"),
            ("step", "invoke_agent"),
            ("chat scripted", "step"),
        ]
        run, step, first, tool, _, second = spans
        assert [span.kind for span in spans] == [INTERNAL, INTERNAL, CLIENT, INTERNAL, INTERNAL, CLIENT]
        assert {span.status for span in spans} == {UNSET}
        assert all(span.resource["service.name"] == "town-hall" for span in spans)
        common = COMMON | {"run_id": good, "message_count": 1}
        assert step.attributes == common | {"step": 1}
        # The first answer comes without counts, and an estimate of it is in the run's: in all, what the run says.
        used = {name: run.attributes.pop(f"gen_ai.usage.{name}") for name in ("input_tokens", "output_tokens")}
        assert all(count > 0 for count in used.values())
        assert run.attributes == RUN | common | {"outcome": "completed", "usage_source": "estimated"}
        assert first.attributes == CHAT | common | {"gen_ai.response.finish_reasons": ["tool_calls"]}
        assert second.attributes == CHAT | common | {
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": 7,
            "gen_ai.usage.output_tokens": 1,
            "usage_source": "reported",
        }
        assert tool.attributes == common | {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "submit_feedback",
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": "call_1",
        }

        run, step, chat = receiver.spans(failed)
        common = COMMON | {"run_id": failed, "message_count": 3}
        code = run.attributes["error.type"]
        assert run.attributes == RUN | common | {"outcome": "failed", "error.type": code}
        assert chat.attributes == CHAT | common | {"error.type": code}
        assert chat.events == [["attempt_failed", {"error.type": code}]]
        assert {span.status for span in (run, step, chat)} == {ERROR}

        run, step, chat = receiver.spans(stopped)
        assert [run.attributes["outcome"], step.attributes["outcome"], chat.attributes["outcome"]] == ["cancelled"] * 3
        assert {span.status for span in (run, step, chat)} == {UNSET}
        assert "gen_ai.response.finish_reasons" not in chat.attributes

        sent = receiver.bytes
        for canary in (PROMPT, "canary", KEY, record["record_id"]):
            assert canary.encode() not in sent
        assert "the town" not in log.read_text()


async def test_run_belongs_to_the_trace_of_its_request_also_behind_a_crash(tmp_path: Path) -> None:
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    asked = {"traceparent": f"00-{trace}-{caller}-01", "tracestate": "town=hall"}
    halves = reply(chunk("One half, "), asyncio.Event()), completion("the other.")
    async with Receiver(tmp_path) as receiver:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
        async with dialogue(tmp_path, *halves, completion("Hi."), **settings) as (service, _):
            service.client.headers.update(asked)
            begun = await service.begin(PROMPT, session_id="one")
            async with service.stream("GET", f"/runs/{begun}/events?format=events") as received:
                async for frame in received:
                    if frame.event == "text.delta":
                        break
            await service.kill()
            await service.start()
            await service.ended(begun)
            service.client.headers["traceparent"] = "canary"
            alone = await service.begin(PROMPT, session_id="two")
            await service.ended(alone)

        spans = receiver.spans(begun)
        assert [span.name for span in spans] == ["invoke_agent", "step", "chat scripted"]
        assert (spans[0].trace, spans[0].parent, spans[0].attributes["outcome"]) == (trace, caller, "completed")
        assert {(span.trace, span.state) for span in spans} == {(trace, "town=hall")}
        [run, *_] = receiver.spans(alone)
        assert run.trace != trace
        assert (run.parent, run.state) == ("", "")


async def test_receiver_that_does_not_answer_holds_up_neither_answers_nor_the_shutdown(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}/traces",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
            "OTEL_BSP_SCHEDULE_DELAY": "1",
        }
        async with Service(tmp_path, **settings) as service:
            _, frames = await ask(service)
            assert frames[-1].data == "[DONE]"
            began = time.monotonic()
            await soon(service.terminate())
            assert time.monotonic() - began < PATIENCE
            assert "the last spans could not be sent in time" in service.log.read_text()
