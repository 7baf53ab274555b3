import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chat.prompts import VARIABLES_BYTES, Template
from chat.sessions import Turn
from chat.templates import load_templates
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, served

GREETER = "Greet {{ name }}, {{ tone }}."


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "greeter.txt").write_text(GREETER)
    (folder / "plain.md").write_text("Be plain.\n")
    (folder / "empty.j2").write_text("{% if x %}x{% endif %}")
    return folder


@pytest.fixture
async def client(tmp_path: Path, templates: Path, model: ScriptedModel) -> AsyncIterator[Client]:
    async with served(tmp_path, model, templates_dir=templates, system_prompt="Be kind.") as client:
        yield client


ANN = {"name": "Ann", "tone": "warmly"}
KIND, TO_ANN, PLAIN = "Be kind.", "Greet Ann, warmly.", "Be plain."


async def asked(client: Client, path: str = "/chat", **body: Any) -> dict[str, Any]:
    body = ({"messages": [{"role": "user", "content": "Hi"}]} if path == "/api/chat" else {"message": "Hi"}) | body
    response = await client.post(path, json={"stream": False, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def refused(client: Client, method: str, path: str, body: object, code: str) -> dict[str, Any]:
    response = await client.request(method, path, json=body)
    assert (response.status_code, response.json()["code"]) == (422, code), response.text
    return dict(response.json())


def told(model: ScriptedModel, number: int = -1) -> list[str]:
    """The system messages of a request to the model."""
    return [turn.content for turn in model.requests[number].request.messages if turn.role == "system"]


async def test_templates_are_listed_with_their_variables(client: Client) -> None:
    assert (await client.get("/templates")).json() == {
        "templates": [
            {"name": "empty", "variables": ["x"]},
            {"name": "greeter", "variables": ["name", "tone"]},
            {"name": "plain", "variables": []},
        ]
    }


async def test_templates_are_read_once(tmp_path: Path, templates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(folder: Path) -> Mapping[str, Template]:
        read.append(folder)
        return load_templates(folder)

    monkeypatch.setattr("chat.templates.load_templates", counted)
    async with served(tmp_path, templates_dir=templates) as client:
        assert len((await client.get("/templates")).json()["templates"]) == 3
    assert read == [templates]


async def test_chat_names_a_template_and_fills_it_in(client: Client, model: ScriptedModel) -> None:
    await asked(client, template="greeter", variables=ANN)
    assert told(model) == [KIND, TO_ANN]
    await asked(client, template="plain")
    assert told(model) == [KIND, PLAIN]
    await asked(client, template="empty", variables={"x": False})
    assert told(model) == [KIND]
    await asked(client)
    assert told(model) == [KIND]
    assert (await client.get("/chat", params={"message": "Hi", "template": "plain"})).status_code == 200
    assert told(model) == [KIND, PLAIN]


async def test_system_messages_of_the_client_come_behind_the_template(client: Client, model: ScriptedModel) -> None:
    turns = [Turn("system", "First."), Turn("user", "Hi"), Turn("system", "Second.")]
    messages = [{"role": turn.role, "content": turn.content} for turn in [*turns[::2], turns[1]]]
    await asked(client, "/api/chat", messages=messages, template="greeter", variables=ANN)
    assert told(model) == [KIND, f"{TO_ANN}\n\nFirst.\n\nSecond."]
    await asked(client, "/api/chat", template="plain")
    assert told(model) == [KIND, PLAIN]


async def test_session_keeps_a_template_for_its_chats(client: Client, model: ScriptedModel) -> None:
    body = {"session_id": "s", "template": "greeter", "variables": ANN}
    session = (await client.post("/sessions", json=body)).json()
    assert (session["template"], session["variables"]) == ("greeter", ANN)
    await asked(client, session_id="s")
    assert told(model) == [KIND, TO_ANN]
    await asked(client, "/api/chat", sessionId="s")
    assert told(model) == [KIND, TO_ANN]
    await asked(client, session_id="s", template="plain")  # for this once
    assert told(model) == [KIND, PLAIN]
    changed = (await client.patch("/sessions/s", json={"title": "New"})).json()
    assert (changed["template"], changed["variables"]) == ("greeter", ANN)
    changed = (await client.patch("/sessions/s", json={"template": "plain"})).json()
    assert (changed["template"], changed["variables"]) == ("plain", {})
    await asked(client, session_id="s")
    assert told(model) == [KIND, PLAIN]
    await client.patch("/sessions/s", json={"template": None})
    await asked(client, session_id="s")
    assert told(model) == [KIND]
    await asked(client, session_id="new")
    assert told(model) == [KIND]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/chat"), ("POST", "/api/chat"), ("POST", "/sessions"), ("PATCH", "/sessions/s")]
)
async def test_template_is_checked_where_it_is_named(client: Client, method: str, path: str) -> None:
    await client.post("/sessions", json={"session_id": "s"})
    said = {"message": "Hi", "messages": [{"role": "user", "content": "Hi"}], "user_id": "nobody"}

    async def wrong(code: str, **body: object) -> dict[str, Any]:
        return await refused(client, method, path, said | body, code)

    await wrong("template_unknown", template="unknown")
    await wrong("invalid_request", template="../greeter")
    await wrong("invalid_request", variables=ANN)
    problem = await wrong("invalid_request", template="greeter", variables={"name": "Ann", "more": 1})
    assert [error["field"] for error in problem["errors"]] == ["variables.tone", "variables.more"]
    await wrong("invalid_request", template="empty", variables={"x": "a" * VARIABLES_BYTES})
    for value in (None, {"a": 1}, [[1]], [None]):
        await wrong("invalid_request", template="empty", variables={"x": value})
    assert (await client.get("/sessions", params={"user_id": "nobody"})).json()["sessions"] == []
    assert (await client.get("/sessions/s")).json()["template"] is None


async def test_query_string_carries_no_variables(client: Client) -> None:
    parameters = {"message": "Hi", "template": "greeter", "variables": "{}"}
    assert (await client.get("/chat", params=parameters)).status_code == 422


async def test_values_that_do_not_fit_are_in_no_answer_and_no_log(
    client: Client, templates: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (templates / "sum.txt").write_text("{{ a + b }}")
    async with served(tmp_path, templates_dir=templates) as client:
        with caplog.at_level(logging.INFO):
            body = {"message": "Hi", "template": "sum", "variables": {"a": 1, "b": "my secret"}}
            problem = await refused(client, "POST", "/chat", body, "invalid_request")
    assert "my secret" not in repr(problem) + caplog.text


async def test_retry_uses_the_text_that_the_run_began_with(
    client: Client, tmp_path: Path, templates: Path, model: ScriptedModel
) -> None:
    run = await asked(client, session_id="s", template="greeter", variables=ANN)
    await client.patch("/sessions/s", json={"template": "plain"})
    (templates / "greeter.txt").unlink()
    async with served(tmp_path, model, templates_dir=templates) as client:
        await client.post(f"/runs/{run['run_id']}/retry", json={"stream": False})
        assert told(model) == [TO_ANN]


async def test_client_comes_back_to_its_run_when_the_template_is_gone(
    client: Client, tmp_path: Path, templates: Path, model: ScriptedModel
) -> None:
    body = {"message": "Hi", "template": "plain"}
    whole = (await client.post("/chat", json=body)).text
    _opening, first, *rest = whole.split("\n\n")
    (templates / "plain.md").unlink()
    async with served(tmp_path, model, templates_dir=templates) as client:
        headers = {"Last-Event-ID": first.partition("\n")[0].removeprefix("id: ")}
        for response in (
            await client.post("/chat", json=body, headers=headers),
            await client.get("/chat", params=body, headers=headers),
        ):
            assert response.text.split("\n\n")[1:] == rest
    assert len(model.requests) == 1


@pytest.mark.parametrize("path", ["/chat", "/api/chat"])
async def test_same_key_leads_to_the_first_answer_when_the_template_is_gone(
    client: Client, tmp_path: Path, templates: Path, model: ScriptedModel, path: str
) -> None:
    headers = {"Idempotency-Key": "key"}
    body = {"message": "Hi", "messages": [{"role": "user", "content": "Hi"}], "template": "plain"}
    whole = (await client.post(path, json=body, headers=headers)).text
    (templates / "plain.md").unlink()
    async with served(tmp_path, model, templates_dir=templates) as client:
        again = await client.post(path, json=body, headers=headers)
        assert (again.text, again.headers["idempotency-replayed"]) == (whole, "true")
        await refused(client, "POST", path, body, "template_unknown")  # without the key
    assert len(model.requests) == 1


async def test_message_that_waits_keeps_its_text(client: Client, model: ScriptedModel, gate: asyncio.Event) -> None:
    gate.clear()
    first = asyncio.create_task(client.post("/chat", json={"message": "Hi", "session_id": "s"}))
    await model.asked(0)
    body = {"message": "Ho", "session_id": "s", "on_busy": "queue", "template": "greeter", "variables": ANN}
    response = await client.post("/chat", json=body, headers={"Prefer": "respond-async"})
    assert response.json()["status"] == "queued"
    gate.set()
    await soon(first)
    await model.asked(1)
    assert told(model) == [KIND, TO_ANN]


async def test_template_that_a_session_had_and_is_gone_is_said_to_be_gone(
    client: Client, tmp_path: Path, templates: Path, model: ScriptedModel
) -> None:
    await client.post("/sessions", json={"session_id": "s", "template": "plain"})
    (templates / "plain.md").unlink()
    async with served(tmp_path, model, templates_dir=templates) as client:
        await refused(client, "POST", "/chat", {"message": "Hi", "session_id": "s"}, "template_unknown")
        await asked(client, session_id="s", template="empty", variables={"x": 1})
    async with served(tmp_path, model) as client:  # an operator who has none does not mean any
        assert (await client.get("/templates")).json() == {"templates": []}
        await asked(client, session_id="s")
        assert told(model) == []


async def test_template_is_part_of_what_a_key_stands_for(client: Client, tmp_path: Path, model: ScriptedModel) -> None:
    headers = {"Idempotency-Key": "key"}
    body = {"message": "Hi", "stream": False, "template": "greeter", "variables": ANN}
    first = await client.post("/chat", json=body, headers=headers)
    again = await client.post("/chat", json=body, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    for other in (body | {"variables": ANN | {"name": "Bob"}}, body | {"template": "plain", "variables": {}}):
        response = await client.post("/chat", json=other, headers=headers)
        assert response.json()["code"] == "idempotency_conflict"
    response = await client.post("/chat", json={"message": "Hi"}, headers=headers)
    assert response.json()["code"] == "idempotency_conflict"


async def test_session_is_looked_at_for_its_template_only_where_there_are_templates(
    tmp_path: Path, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def looked(session_id: str) -> None:
        looks.append(session_id)

    for folder, expected in ((None, []), (templates, ["s"])):
        looks: list[str] = []
        async with served(tmp_path, ScriptedModel([STOP]), templates_dir=folder) as client:
            monkeypatch.setattr(client.app.state.engine.store, "session", looked)
            await asked(client, session_id="s")
            await asked(client)
        assert looks == expected
