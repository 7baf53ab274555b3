from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat.echo import EchoModel
from tests.serving import Client, served


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(tmp_path, EchoModel(0), tools="examples.town_hall") as client:
        yield client


async def ask(town: Client, message: str, **body: object) -> dict[str, object]:
    response = await town.post("/chat", json={"message": message, "session_id": "s", "stream": False, **body})
    assert response.status_code == 200
    return dict(response.json())


async def test_tool_is_called_and_what_it_writes_down_can_be_read(town: Client) -> None:
    answer = await ask(town, '/report_incident {"description": "A pothole", "location": "Main Street"}', user_id="ann")
    assert '"status":"reported"' in str(answer["answer"])
    page = (await town.get("/records", params={"kind": "incident", "user_id": "ann", "session_id": "s"})).json()
    [record] = page["records"]
    assert record["data"] == {
        "description": "A pothole",
        "location": "Main Street",
        "urgency": "medium",
        "name": None,
    }
    assert (record["run_id"], record["user_id"], page["next"]) == (answer["run_id"], "ann", None)
    assert record["record_id"] in str(answer["answer"])
    assert (await town.get("/records", params={"kind": "feedback"})).json()["records"] == []


async def test_calls_are_shown_with_the_message(town: Client) -> None:
    await ask(town, '/submit_feedback {"feedback": ""}')
    question, answer = (await town.get("/sessions/s/messages")).json()["messages"]
    assert question["tool_calls"] == []
    [call] = answer["tool_calls"]
    assert (call["name"], call["arguments"], call["result"]) == ("submit_feedback", '{"feedback": ""}', None)
    assert call["error"].startswith("The arguments do not fit: feedback:")
    assert (await town.get("/records")).json()["records"] == []


async def test_text_format_shows_the_answer_alone(town: Client) -> None:
    response = await town.post("/chat", json={"message": "/submit_feedback {}"})
    data = [line for line in response.text.split("\n") if line.startswith("data: ")]
    assert data[0].startswith("data: The ")
    assert "tool" not in response.text
    assert response.text.count("id: run_") > len(data)  # every event has its place


async def test_only_a_call_that_waits_is_decided_about(town: Client) -> None:
    answer = await ask(town, '/submit_feedback {"feedback": "Hi"}')
    response = await town.post(f"/runs/{answer['run_id']}/approvals/call_1", json={"approved": True})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    response = await town.post("/runs/nobody/approvals/call_1", json={})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("query", [{"limit": "0"}, {"after": "x"}, {"session_id": "ä b"}])
async def test_wrong_questions_are_refused(town: Client, query: dict[str, str]) -> None:
    response = await town.get("/records", params=query)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
