"""Cursors that lead nowhere: each gets a clear answer, and none a silent gap or a second run."""

import asyncio
import json

import httpx
import pytest

from tests.live.checks import check_run, member
from tests.live.conftest import Serve
from tests.live.service import PATIENCE, Frame, Service, parse_frame, read_all, text_of

MESSAGE = "Five words and no more."
NOBODY = "run_00000000000000000000000000"


async def ask(service: Service, path: str, last_event_id: str) -> httpx.Response:
    return await service.client.get(path, headers={b"Last-Event-ID": last_event_id.encode()})


async def ended(service: Service, message: str = MESSAGE, **body: object) -> tuple[str, list[Frame]]:
    """A run that has ended, and its frames."""
    run_id = await service.begin(message, **body)
    await service.ended(run_id)
    return run_id, await service.follow(run_id)


def garbage(run_id: str) -> list[str]:
    return [
        "0", "-1", "abc", ".", "..", "run.", ".1", f"{run_id}", f"{run_id}.", f"{run_id}.-1", f"{run_id}.1.0",
        f"{run_id}.1e3", f"{run_id}.+1", f"{run_id}.0x1", f"{run_id}.{'9' * 10_000}", "x" * 10_000,
        f"{'x' * 10_000}.1", "'; DROP TABLE runs; --.1", "%00.1", "²",
    ]  # fmt: skip


async def test_cursors_that_lead_nowhere_get_clear_answers(service: Service, subtests: pytest.Subtests) -> None:
    run_id, whole = await ended(service, session_id="one")
    last = whole[-1].seq
    expected = {
        f"{NOBODY}.0": ("cursor_mismatch", "not_found"),
        f"{NOBODY}.3": ("cursor_mismatch", "not_found"),
        f"{run_id}.{last + 1}": ("cursor_ahead", "cursor_ahead"),
        f"{run_id}.{10**18 - 1}": ("cursor_ahead", "cursor_ahead"),
        **dict.fromkeys(garbage(run_id), ("invalid_cursor", "invalid_cursor")),
    }
    statuses = {"not_found": 404, "cursor_mismatch": 409, "cursor_ahead": 409, "invalid_cursor": 400}
    for cursor, codes in expected.items():
        with subtests.test(cursor=cursor[:40]):
            own = await ask(service, f"/runs/{run_id}/events", cursor)
            said = {"message": MESSAGE, "session_id": "one"}
            others = [
                await ask(service, "/sessions/one/events", cursor),
                await ask(service, f"/chat?message={MESSAGE}&session_id=one", cursor),
                await service.client.post("/chat", json=said, headers={b"Last-Event-ID": cursor.encode()}),
            ]
            for answer, code in ((own, codes[0]), *[(other, codes[1]) for other in others]):
                assert (answer.status_code, answer.json()["code"]) == (statuses[code], code)
                assert answer.headers["content-type"] == "application/problem+json"
    other_id, _ = await ended(service, session_id="two")
    assert (await ask(service, f"/runs/{run_id}/events", f"{other_id}.1")).json()["code"] == "cursor_mismatch"
    assert service.rows("SELECT count(*) FROM runs") == [(2,)]
    assert '"level": "ERROR"' not in service.log.read_text()
    await check_run(service, run_id)


async def test_the_query_takes_the_same_cursors(service: Service) -> None:
    run_id, whole = await ended(service)

    async def follow(after: str, **headers: str) -> httpx.Response:
        return await service.client.get(f"/runs/{run_id}/events", params={"after": after}, headers=headers)

    for after in ("2", f"{run_id}.2"):
        assert records(await follow(after))[1:] == whole[3:]
    # The header is what a browser has really seen; its URL repeats what it began with.
    assert records(await follow("1", **{"Last-Event-ID": f"{run_id}.4"}))[1:] == whole[5:]
    for after in ("-1", "x", "2,5", "9" * 19, "9" * 10_000):
        assert (await follow(after)).json()["code"] == "invalid_cursor"
    assert (await follow("999")).json()["code"] == "cursor_ahead"
    assert (await follow(str(whole[-1].seq))).status_code == 204


def records(response: httpx.Response) -> list[Frame]:
    assert response.status_code == 200, response.text
    return [frame for record in response.text.split("\n\n") if (frame := parse_frame(record))]


async def test_a_cursor_on_the_end_stops_the_client(service: Service) -> None:
    run_id, whole = await ended(service, session_id="one")
    for path in (f"/runs/{run_id}/events", "/sessions/one/events", f"/chat?message={MESSAGE}&session_id=one"):
        answer = await ask(service, path, whole[-1].id or "")
        assert (answer.status_code, answer.content) == (204, b"")
    assert service.rows("SELECT count(*) FROM runs") == [(1,)]


async def test_a_cursor_ahead_of_a_running_or_waiting_run_is_refused(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="1")
    running = await service.begin("One word a second, and ten of them in all.", session_id="one")
    waiting = await service.begin("Next.", session_id="one", on_busy="queue")
    for run_id in (running, waiting):
        for seq in (500, 10**18 - 1):
            answer = await ask(service, f"/runs/{run_id}/events", f"{run_id}.{seq}")
            assert (answer.status_code, answer.json()["code"]) == (409, "cursor_ahead")
    for run_id in (waiting, running):
        await service.client.post(f"/runs/{run_id}/cancel")
        await check_run(service, run_id)


async def test_an_expired_log_gives_the_whole_text_or_says_so(serve: Serve) -> None:
    service = await serve(EVENT_RETENTION="0")
    run_id, whole = await ended(service, session_id="one")
    last = whole[-1].seq
    await service.restart()  # the first sweep comes with the start
    async with asyncio.timeout(PATIENCE):
        while service.rows("SELECT folded FROM runs") != [(1,)]:  # noqa: ASYNC110  # another process's table
            await asyncio.sleep(0.05)
    late = await service.follow(run_id)
    assert text_of(late) == MESSAGE
    assert [frame.seq for frame in late] == [0, last - 1, last]
    assert late[-1] == whole[-1]
    assert text_of(await service.follow(run_id, 0)) == MESSAGE
    for seq in range(1, last - 1):
        for path in (f"/runs/{run_id}/events", "/sessions/one/events"):
            answer = await ask(service, path, f"{run_id}.{seq}")
            assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired")
    assert (await service.follow(run_id, last - 1))[1:] == whole[-1:]
    assert (await ask(service, f"/runs/{run_id}/events", f"{run_id}.{last}")).status_code == 204
    assert (await ask(service, f"/runs/{run_id}/events", f"{run_id}.{last + 1}")).json()["code"] == "cursor_ahead"
    events = await service.follow(run_id, format="events")
    assert json.loads(events[1].data or "")["text"] == MESSAGE
    assert member(events[-1], "text_length") == len(MESSAGE)
    assert await service.answer(run_id) == MESSAGE


async def test_a_session_is_followed_from_run_to_run(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.5")
    assert (await service.client.post("/sessions", json={"session_id": "one"})).status_code == 201
    assert (await service.client.get("/sessions/one/events")).status_code == 204  # nothing runs
    first = await service.begin(MESSAGE, session_id="one")
    second = await service.begin("Two more.", session_id="one", on_busy="queue")
    async with service.stream("GET", "/sessions/one/events") as stream:
        begun = [frame async for frame in stream]
    assert begun == await service.follow(first)
    async with service.client.stream(
        "GET", "/sessions/one/events", headers={"Last-Event-ID": begun[2].id or ""}
    ) as response:
        assert (await read_all(response))[1:] == begun[3:]
    async with service.stream("GET", "/sessions/one/events", headers={"Last-Event-ID": begun[-1].id or ""}) as stream:
        then = [frame async for frame in stream]
    assert text_of(then) == "Two more."
    assert then == await service.follow(second)
    answer = await ask(service, "/sessions/one/events", then[-1].id or "")
    assert (answer.status_code, answer.content) == (204, b"")
