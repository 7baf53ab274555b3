import ast
import json
from pathlib import Path

import pytest

from chat.errors import ChatError, ModelError, StoreCorruptError, StoreUnavailableError
from handlers.errors import STATUS, TITLES, problem
from tests.described import Description
from tests.scripted import ScriptedModel
from tests.serving import Client, served

ROOT = Path(__file__).parents[2]

ERRORS = {"ChatError", "ModelError", "RunFailed"}


def codes_of(file: Path) -> set[str]:
    """The codes of the errors and failures that are made in this file."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call) and node.args]
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
        and isinstance(call.func, ast.Name)
        and call.func.id in ERRORS
    }


def test_every_code_has_a_status_and_every_status_a_title() -> None:
    files = [file for folder in ("chat", "handlers", "store") for file in (ROOT / folder).rglob("*.py")]
    codes = set().union(*[codes_of(file) for file in files])
    assert {"not_found", "cursor_ahead", "upstream_incomplete", "run_in_progress"} <= codes
    never_answered = {"run_taken"}  # its streams end, and their clients come back
    assert codes - never_answered <= set(STATUS)
    assert set(STATUS.values()) <= set(TITLES)


@pytest.mark.parametrize("error", [StoreUnavailableError(), StoreCorruptError()], ids=lambda error: error.code)
def test_store_that_cannot_be_used_is_a_503(error: ChatError) -> None:
    assert problem(error, "/chat").status_code == 503


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (2, "2"), (29.6, "30"), (None, None)])
def test_client_is_told_when_to_come_back_in_whole_seconds(seconds: float | None, header: str | None) -> None:
    response = problem(ChatError("draining", "Not now", retry_after=seconds), "/chat")
    assert response.headers.get("retry-after") == header


async def test_failure_that_this_version_does_not_know_is_told_as_it_was_stored(
    client: Client, model: ScriptedModel
) -> None:
    model.scripts = ([ModelError("upstream_on_strike", "It is on strike.", retryable=True)],)
    for _ in range(2):  # the second reads what the first has stored
        response = await client.post("/query", json={"prompt": "Hi"}, headers={"Idempotency-Key": "key"})
        problem = response.json()
        assert (response.status_code, problem["title"]) == (502, "Bad Gateway")
        assert (problem["code"], problem["detail"]) == ("upstream_on_strike", "It is on strike.")


async def test_client_is_told_when_the_model_wants_to_be_asked_again(client: Client, model: ScriptedModel) -> None:
    error = ModelError("upstream_rate_limited", "It is busy.", retryable=True, transient=True, retry_after=29.6)
    model.scripts = ([error],)
    response = await client.post("/chat", json={"message": "Hi", "stream": False})
    assert (response.status_code, response.headers["retry-after"]) == (503, "30")
    Description((await client.get("/openapi.json")).json()).check_response(response)
    run_id = response.json()["run_id"]
    for form, told in (("text", {}), ("events", {"retry_after": 29.6})):
        stream = (await client.get(f"/runs/{run_id}/events", params={"format": form})).text
        data = json.loads(stream.rpartition("data: ")[2])
        assert data == {"code": "upstream_rate_limited", "message": "It is busy.", "retryable": True} | told


async def test_error_is_a_problem_document(client: Client) -> None:
    response = await client.get("/runs/unknown", headers={"X-Request-Id": "my.request_1"})
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no such run.",
        "code": "not_found",
        "request_id": "my.request_1",
    }


@pytest.mark.parametrize("path", ["/nowhere", "/runs", "/sessions/a/b", "/static/"])
async def test_address_where_nothing_is_says_so(client: Client, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.json()["detail"] == "There is nothing at this address."


async def test_wrong_method_is_told_the_right_ones(client: Client) -> None:
    response = await client.delete("/query")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_wrong_method_is_told_those_of_all_routes_of_the_address(client: Client) -> None:
    response = await client.put("/sessions/demo")
    assert response.status_code == 405
    assert response.headers["allow"] == "DELETE, GET, HEAD, PATCH"


async def test_what_nobody_foresaw_is_shown_to_nobody_but_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(run_id: str) -> None:
        raise ZeroDivisionError("my secret")

    async with served(tmp_path) as client:
        monkeypatch.setattr(client.app.state.engine.store, "run", broken)
        response = await client.get("/runs/r1", params={"message": "a question"})
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "my secret" not in response.text
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [unforeseen] = [line for line in lines if line["level"] == "ERROR"]
    assert "in broken\n" in unforeseen["exc_info"]
    assert unforeseen["exc_info"].endswith("\nZeroDivisionError")
    assert unforeseen["request_id"] == response.headers["x-request-id"] == response.json()["request_id"]
    assert "a question" not in repr([line for line in lines if line["logger"] != "httpx"])  # which is the test's own
