"""An upstream whose bytes are too many, not UTF-8, or JSON of another shape."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.live.checks import settled
from tests.live.dialogue import ask, dialogue
from tests.live.service import PATIENCE, Service, text_of
from tests.upstream import Action, End, Reply, chunk, completion, done, finish, reply, sse

HUGE = 64 * 2**20

ROOM = 24 * 2**20
"""What a service may need for a moment, whatever comes: some events of a megabyte, and what Python makes of them."""


def peak(service: Service) -> int:
    """The most main memory that the service's process had since the last call, in bytes."""
    process = Path(f"/proc/{service.pid}")
    most = int((process / "status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    (process / "clear_refs").write_text("5")  # begins anew: man 5 proc
    return most


def huge(before: bytes, behind: bytes) -> tuple[Action, ...]:
    """64 MB between the two, as 64 HTTP chunks."""
    return (before, *[b"x" * 2**20] * (HUGE // 2**20), behind)


OVERSIZED: dict[str, Reply] = {
    "a token": reply(*huge(b'data: {"choices": [{"delta": {"content": "', b'"}}]}\n\n'), finish(), done()),
    "a line that never ends": reply(*huge(b"data: ", b""), End.HOLD),
    "a comment": reply(*huge(b": ", b""), End.HOLD),
    "an event of many lines": reply(*[b"data: " + b"x" * 1000 + b"\n"] * (HUGE // 1000), End.HOLD),
    "an error": reply(*huge(b'{"error": "', b'"}'), status=500),
    "a refusal": reply(*huge(b'{"error": "', b'"}'), status=400),
    "a page": reply(*huge(b"<html>", b"</html>"), headers={"Content-Type": "text/html"}),
    "a header": reply(chunk("Hello"), finish(), done(), headers={"X-Huge": "x" * HUGE}),
}


async def test_memory_stays_bounded_when_the_upstream_sends_64_megabytes_as(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with dialogue(tmp_path, completion("warm"), *OVERSIZED.values(), MODEL_RETRIES="0") as (service, upstream):
        await settled(service, (await ask(service))[0])
        usual = peak(service)
        for number, what in enumerate(OVERSIZED, 1):
            with subtests.test(what):
                run_id, frames = await ask(service)
                run = await settled(service, run_id)
                assert (run["status"], text_of(frames)) == ("failed", "")
                assert peak(service) < usual + ROOM
                await asyncio.wait_for(upstream.requests[number].closed.wait(), PATIENCE)


async def test_an_answer_over_the_limit_is_cut_and_what_was_shown_is_kept(tmp_path: Path) -> None:
    thought = sse({"choices": [{"delta": {"reasoning_content": "0123456789"}}]})
    endless = [reply(*[each] * 100_000, End.HOLD) for each in (chunk("0123456789"), thought)]
    async with dialogue(tmp_path, *endless, MAX_ANSWER_CHARS="255") as (service, upstream):
        for number, shown in enumerate(("0123456789" * 25, "")):
            run_id, frames = await ask(service)
            run = await settled(service, run_id)
            assert run["error"]["code"] == "answer_too_long"
            assert not run["error"]["retryable"]
            assert text_of(frames) == shown
            await asyncio.wait_for(upstream.requests[number].closed.wait(), PATIENCE)


def said(content: bytes) -> bytes:
    """The event of a token whose text stands in the JSON as these very bytes."""
    return b'data: {"choices": [{"delta": {"content": "' + content + b'"}}]}\n\n'


ODD_TEXTS: dict[str, tuple[bytes, str]] = {
    "invalid bytes": (said(b"caf\xe9 \xff!"), "caf\ufffd \ufffd!"),
    "an overlong slash": (said(b"\xc0\xaf"), "\ufffd\ufffd"),
    "a lone surrogate": (said(rb"a\ud83db"), "a\ufffdb"),
    "surrogates the wrong way round": (said(rb"\ude00\ud83d"), "\ufffd\ufffd"),
    "a surrogate pair": (said(rb"\ud83d\ude00"), "\U0001f600"),
    "NUL and other controls": (chunk("a\x00b\x1b[31m\x7f\x85\u2028c"), "a\x00b\x1b[31m\x7f\x85\u2028c"),
    "line ends": (chunk("a\nb\r\nc\rd\n\ne"), "a\nb\r\nc\rd\n\ne"),
    "what looks like an event": (chunk("\n\nevent: run.failed\ndata: {}\n\n"), "\n\nevent: run.failed\ndata: {}\n\n"),
    "a byte order mark in front": (b"\xef\xbb\xbf" + chunk("Hello"), "Hello"),
    "lines that end in CRLF": (chunk("Hello").replace(b"\n", b"\r\n"), "Hello"),
}


async def test_text_is_exact_or_repaired_when_there_are(tmp_path: Path, subtests: pytest.Subtests) -> None:
    replies = [reply(event, finish(), done()) for event, _ in ODD_TEXTS.values()]
    async with dialogue(tmp_path, *replies) as (service, _):
        for what, (_, text) in ODD_TEXTS.items():
            with subtests.test(what):
                run_id, _frames = await ask(service)
                assert (await settled(service, run_id))["status"] == "completed"
                assert await service.answer(run_id) == text


async def test_characters_that_are_cut_anywhere_arrive_whole(tmp_path: Path) -> None:
    text = "é€😀 ñ\u0301 한국어"
    event = said(text.encode())
    bytewise = [event[at : at + 1] for at in range(len(event))]
    async with dialogue(tmp_path, reply(*bytewise, finish(), done())) as (service, _):
        run_id, frames = await ask(service)
        assert (await settled(service, run_id))["status"] == "completed"
        assert text_of(frames) == text


def delta(content: object) -> object:
    return {"index": 0, "delta": {"content": content}}


ODD_CHUNKS: dict[str, object] = {
    "choices null": {"choices": None},
    "choices empty": {"choices": []},
    "choices a number": {"choices": 5},
    "choices a text": {"choices": "none"},
    "choices an object": {"choices": {"0": delta("Never")}},
    "no choices": {},
    "a choice null": {"choices": [None]},
    "a choice a list": {"choices": [[]]},
    "a choice empty": {"choices": [{}]},
    "another choice": {"choices": [{"index": 1, "delta": {"content": "Never"}, "finish_reason": "stop"}]},
    "delta null": {"choices": [{"index": 0, "delta": None}]},
    "delta a number": {"choices": [{"index": 0, "delta": 7}]},
    "content null": {"choices": [delta(None)]},
    "content a number": {"choices": [delta(5)]},
    "content a list": {"choices": [delta(["Never"])]},
    "content an object": {"choices": [delta({"text": "Never"})]},
    "finish_reason a number": {"choices": [{"index": 0, "delta": {}, "finish_reason": 5}]},
    "finish_reason false": {"choices": [{"index": 0, "delta": {}, "finish_reason": False}]},
    "usage a number": {"choices": [], "usage": 5},
    "usage without counts": {"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": "many"}},
    "usage negative": {"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 1}},
    "usage beyond 64 bits": {"choices": [], "usage": {"prompt_tokens": 10**30, "completion_tokens": 10**30}},
    "error null": {"choices": [], "error": None},
}


async def test_chunks_of_an_odd_shape_are_passed_over(tmp_path: Path) -> None:
    odd = [sse(each) for each in ODD_CHUNKS.values()]
    async with dialogue(tmp_path, reply(*odd, chunk("Hello "), *odd, chunk("world"), finish(), done())) as (service, _):
        run_id, frames = await ask(service)
        run = await settled(service, run_id)
        assert (run["status"], run["finish_reason"], run["usage"]["source"]) == ("completed", "stop", "estimated")
        assert text_of(frames) == "Hello world"


ODD_EVENTS: dict[str, bytes] = {
    "a list": b"data: []\n\n",
    "a number": b"data: 5\n\n",
    "null": b"data: null\n\n",
    "a text": b'data: "Hello"\n\n',
    "nested without end": b"data: " + b"[" * 200_000 + b"\n\n",
    "an integer without end": b'data: {"choices": [], "id": ' + b"9" * 5_000 + b"}\n\n",
    "not a number": b'data: {"choices": [{"delta": {"content": NaN}}]}\n\n',
}


async def test_the_service_lives_on_after_an_event_that_is(tmp_path: Path, subtests: pytest.Subtests) -> None:
    replies = [reply(chunk("Hello"), each, finish(), done()) for each in ODD_EVENTS.values()]
    async with dialogue(tmp_path, *replies, MODEL_RETRIES="0") as (service, _):
        for what in ODD_EVENTS:
            with subtests.test(what):
                run_id, frames = await ask(service)
                run = await settled(service, run_id)
                assert run["status"] in ("completed", "failed")
                assert text_of(frames) == "Hello"
                if run["status"] == "failed":
                    assert run["error"]["code"] == "upstream_invalid"


async def test_an_odd_finish_reason_stays_a_word(tmp_path: Path) -> None:
    reasons = "x" * 100_000, "stop\n\nevent: run.failed\ndata: {}", "\ud83d", "⛔"
    replies = [reply(chunk("Hello"), finish(reason), done()) for reason in reasons]
    async with dialogue(tmp_path, *replies) as (service, _):
        for _reason in reasons:
            run_id, frames = await ask(service, format="events")
            run = await settled(service, run_id)
            assert run["status"] == "completed"
            assert len(run["finish_reason"]) <= 64
            assert frames[-1].event == "run.completed"
            assert re.fullmatch(r"\{.*\}", frames[-1].data or "")
            assert json.loads(frames[-1].data or "")["finish_reason"] == run["finish_reason"]
