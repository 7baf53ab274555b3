import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server import VERSION
from tests.live.service import Frame, parse_frame
from tests.serving import Client, served

QUICK = {"events": 3, "interval": 0}


def frames(response: httpx.Response) -> list[Frame]:
    *records, rest = response.text.split("\n\n")
    assert rest == ""
    return [frame for frame in map(parse_frame, records) if frame is not None]


def data_of(frame: Frame) -> dict[str, Any]:
    return dict(json.loads(frame.data or ""))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_stream_has_a_report_the_events_and_an_end(client: Client, method: str) -> None:
    report, *events, end = frames(await client.request(method, "/doctor/stream", params=QUICK))
    assert (report.id, report.event) == ("doctor.0", "doctor.report")
    assert [(event.id, event.event) for event in events] == [(f"doctor.{n}", "doctor.event") for n in (1, 2, 3)]
    assert (end.id, end.event) == ("doctor.4", "doctor.end")
    numbered = [data_of(event) for event in (*events, end)]
    assert [event["number"] for event in numbered] == [1, 2, 3, 4]
    assert [event["after"] for event in numbered] == sorted(event["after"] for event in numbered)


async def test_report_tells_names_of_headers_and_no_values(client: Client) -> None:
    headers = {"Authorization": "Bearer hush", "Cookie": "session=hush", "X-Hush": "hush", "X-Session-Id": "hush"}
    response = await client.post("/doctor/stream", params=QUICK, headers=headers, content=b"hush")
    assert "hush" not in response.text
    report = data_of(frames(response)[0])
    assert (report["version"], report["http_version"], report["body_bytes"]) == (VERSION, "1.1", 4)
    assert (report["body_limit"], report["ping_seconds"]) == (2_000_000, 15)
    assert report["received"] == ["accept", "authorization", "cookie", "x-session-id"]
    assert [name for name in report["sent"] if name not in response.headers] == []


async def test_stream_goes_on_behind_its_last_event_id(client: Client) -> None:
    async def ids(cursor: str) -> list[str | None]:
        response = await client.get("/doctor/stream", params=QUICK, headers={"Last-Event-ID": cursor})
        return [frame.id for frame in frames(response) if frame.event != "doctor.report"]

    assert await ids("doctor.2") == ["doctor.3", "doctor.4"]
    assert await ids("doctor.3") == ["doctor.4"]
    for method in ("GET", "POST"):
        at_end = {"Last-Event-ID": "doctor.4"}
        assert (await client.request(method, "/doctor/stream", params=QUICK, headers=at_end)).status_code == 204
        for unknown in ("doctor.x", "doctor.1000", "run_1.2", "doctor."):
            wrong = {"Last-Event-ID": unknown}
            refused = await client.request(method, "/doctor/stream", params=QUICK, headers=wrong)
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize(
    "query", [{"events": 101}, {"events": -1}, {"interval": 1.1}, {"silence": 301}, {"silence": "nan"}, {"pings": "x"}]
)
async def test_streams_are_bounded(client: Client, query: dict[str, Any]) -> None:
    refused = await client.get("/doctor/stream", params=query)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("pings", [True, False])
async def test_silence_has_pings_if_they_are_wanted(tmp_path: Path, pings: bool) -> None:
    async with served(tmp_path, ping_seconds=0.02) as client:
        response = await client.get("/doctor/stream", params={"events": 0, "silence": 0.05, "pings": pings})
        assert response.text.count(": ping\n\n") == (2 if pings else 0)
        assert data_of(frames(response)[-1])["after"] >= 0.05


async def test_head_begins_no_stream(client: Client) -> None:
    response = await client.head("/doctor/stream", params={"events": 100, "interval": 1})
    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert response.content == b""


async def test_bodies_over_the_limit_are_refused(tmp_path: Path) -> None:
    async def unsized() -> AsyncIterator[bytes]:
        yield b"x" * 11

    async with served(tmp_path, max_body_bytes=10) as client:
        assert (await client.post("/doctor/stream", params=QUICK, content=b"x" * 10)).status_code == 200
        assert (await client.post("/doctor/stream", params=QUICK, content=unsized())).status_code == 413
