"""What belongs to one user is for another as if it did not exist: on every route, with every id, byte for byte.

The cases are held against the URL table: a route that is not here fails.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from handlers import ROUTES
from handlers.identity import AdminRoute
from handlers.middleware import is_public
from tests.handlers.test_identity import made
from tests.live.chatkit import operation, said
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, served

WORDS = "canarious words"
"""What the owner has said, and nobody else may read."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ids:
    """``session`` has ``message``, ``run`` and its ``answer``; in ``busy`` an answer is being written by ``going``."""

    session: str
    message: str
    run: str
    answer: str
    busy: str
    going: str
    key: str
    document: str
    user: str = "ann"

    @property
    def names(self) -> Mapping[str, str]:
        """With the names that OpenAI's clients have for the runs."""
        names = {name: getattr(self, name) for name in Ids.__slots__}
        return names | {
            "response": names["run"].replace("run", "resp"),
            "coming": names["going"].replace("run", "resp"),
        }


UNKNOWN = Ids(
    session="nowhere",
    message="msg_0000000000000000000000000x",
    run="run_0000000000000000000000000x",
    answer="msg_0000000000000000000000000y",
    busy="nowhere-else",
    going="run_0000000000000000000000000y",
    key="no-such-key",
    document="doc_0000000000000000000000000x",
    user="nobody",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, ``{}`` of whose strings are ids. ``creates``: an unknown id would be taken for a new one."""

    method: str
    path: str
    json: Any = None
    headers: Mapping[str, str] | None = None
    creates: bool = False
    lists: bool = False

    @property
    def name(self) -> str:
        return f"{self.method} {self.path} {self.json or ''}{self.headers or ''}"

    async def of(self, client: Client, ids: Ids, who: Mapping[str, str]) -> httpx.Response:
        names = ids.names
        headers = {**{name: text.format(**names) for name, text in (self.headers or {}).items()}, **who}
        headers["X-Request-Id"] = "req_same"
        return await client.request(
            self.method, self.path.format(**names), json=_filled(self.json, names), headers=headers
        )


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(member, names) for name, member in value.items()}
    if isinstance(value, list):
        return [_filled(member, names) for member in value]
    return value.format(**names) if isinstance(value, str) else value


def get(path: str, **more: Any) -> Ask:
    return Ask("GET", path, **more)


def post(path: str, json: Any = None, **more: Any) -> Ask:
    return Ask("POST", path, json, **more)


SEEN = {"Last-Event-ID": "{run}.1"}
HI = {"message": WORDS}
TEXT = {"text": WORDS, "title": "Another", "collection": "handbook"}
TURNS = [{"role": "user", "content": WORDS}]
PARTS = [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": WORDS}]}]
YES = {"type": "tool-x", "state": "approval-responded", "approval": {"id": "{run}.call_1", "approved": True}}
RUN_INPUT = {"messages": [{"id": "m1", "role": "user", "content": WORDS}]}

OWNED: Mapping[str, Sequence[Ask]] = {
    "GET /chat": [
        get(f"/chat?message={WORDS}&session_id={{session}}", creates=True),
        get(f"/chat?message={WORDS}", headers=SEEN),
    ],
    "POST /chat": [
        post("/chat", HI | {"session_id": "{session}"}, creates=True),
        post("/chat", HI | {"session_id": "{session}", "parent_id": "{answer}"}, creates=True),
        post("/chat", HI | {"session_id": "{busy}", "on_busy": "interrupt"}, creates=True),
        post("/chat", HI, headers=SEEN),
    ],
    "POST /api/chat": [
        post("/api/chat", {"messages": TURNS, "sessionId": "{session}"}, creates=True),
        post("/api/chat", {"messages": TURNS}, headers=SEEN),
        post("/api/chat", {"id": "{session}", "messages": PARTS}, creates=True),
        post("/api/chat", {"id": "{session}", "trigger": "regenerate-message", "messageId": "{answer}"}),
        post("/api/chat", {"id": "{session}", "trigger": "regenerate-message"}),
        post("/api/chat", {"id": "{session}", "messages": [{"role": "assistant", "parts": [YES]}]}),
    ],
    "GET /api/chat/{session_id}/stream": [get("/api/chat/{busy}/stream")],
    "POST /api/chat/{session_id}/stop": [post("/api/chat/{busy}/stop", {})],
    "POST /query": [post("/query", {"prompt": WORDS}, headers=SEEN)],
    "POST /query/stream": [post("/query/stream", {"prompt": WORDS}, headers=SEEN)],
    "GET /runs/{run_id}": [get("/runs/{run}"), get("/runs/{going}")],
    "GET /runs/{run_id}/events": [
        get("/runs/{run}/events"),
        get("/runs/{going}/events"),
        get("/runs/{run}/events?format=events&after=1"),
        get("/runs/{run}/events", headers=SEEN),
        get("/runs/{run}/events?after=999"),
        get("/runs/{going}/events?after=999"),
    ],
    "POST /runs/{run_id}/ticket": [post("/runs/{run}/ticket"), post("/runs/{going}/ticket")],
    "POST /runs/{run_id}/cancel": [post("/runs/{run}/cancel"), post("/runs/{going}/cancel")],
    "POST /runs/{run_id}/approvals/{call_id}": [post("/runs/{going}/approvals/call_1", {"approved": True})],
    "POST /runs/{run_id}/retry": [post("/runs/{run}/retry"), post("/runs/{run}/retry", headers=SEEN)],
    "GET /records": [
        get("/records", lists=True),
        get("/records?session_id={session}&kind=chatkit.feedback", lists=True),
    ],
    "GET /sessions": [get("/sessions", lists=True)],
    "POST /sessions": [post("/sessions", {"session_id": "{session}"}, creates=True)],
    "POST /sessions/create": [post("/sessions/create", {"session_id": "{session}"}, creates=True)],
    "GET /sessions/{session_id}": [get("/sessions/{session}"), get("/sessions/{busy}")],
    "PATCH /sessions/{session_id}": [Ask("PATCH", "/sessions/{session}", {"title": "Mine"})],
    "DELETE /sessions/{session_id}": [Ask("DELETE", "/sessions/{session}"), Ask("DELETE", "/sessions/{busy}")],
    "GET /sessions/{session_id}/messages": [
        get("/sessions/{session}/messages"),
        get("/sessions/{session}/messages?before={answer}"),
    ],
    "GET /sessions/{session_id}/events": [
        get("/sessions/{busy}/events"),
        get("/sessions/{session}/events", headers=SEEN),
    ],
    "DELETE /users/{user_id}": [Ask("DELETE", "/users/{user}")],
    "GET /users/{user_id}/export": [get("/users/{user}/export")],
    "GET /usage": [
        get("/usage?by=session", lists=True),
        get("/usage?by=user", lists=True),
        get("/usage?session_id={session}", lists=True),
    ],
    "GET /search": [
        get("/search?q=canarious", lists=True),
        get("/search?q=canarious&session_id={session}", lists=True),
    ],
    "GET /documents": [get("/documents", lists=True), get("/documents?collection=handbook", lists=True)],
    "GET /documents/{document_id}": [get("/documents/{document}")],
    "DELETE /documents/{document_id}": [Ask("DELETE", "/documents/{document}")],
    "GET /ag-ui": [get("/ag-ui?runId={key}")],
    "POST /ag-ui": [
        post("/ag-ui", {"threadId": "{session}", "runId": "another", **RUN_INPUT}, creates=True),
        post("/ag-ui", {"threadId": "{session}", "runId": "another", **RUN_INPUT}, headers=SEEN),
    ],
    "POST /chatkit": [
        post("/chatkit", operation("threads.get_by_id", thread_id="{session}")),
        post("/chatkit", operation("items.list", thread_id="{session}")),
        post("/chatkit", operation("threads.update", thread_id="{session}", title="Mine")),
        post("/chatkit", operation("threads.delete", thread_id="{session}")),
        post("/chatkit", operation("threads.add_user_message", thread_id="{session}", input=said(WORDS))),
        post("/chatkit", operation("threads.retry_after_item", thread_id="{session}", item_id="{message}")),
        post("/chatkit", operation("items.feedback", thread_id="{session}", item_ids=["{answer}.0"], kind="positive")),
        post("/chatkit", operation("threads.create", input=said(WORDS)), headers=SEEN),
        post(
            "/chatkit",
            operation(
                "threads.add_structured_input",
                thread_id="{session}",
                item_id="{run}.call_1",
                input={"status": "skipped", "answers": {}},
            ),
        ),
        post("/chatkit", operation("threads.list"), lists=True),
    ],
    "POST /v1/chat/completions": [
        post("/v1/chat/completions", {"messages": TURNS}, headers={"X-Session-Id": "{session}"}, creates=True),
        post("/v1/chat/completions", {"messages": TURNS, "stream": True}, headers=SEEN),
    ],
    "POST /v1/responses": [
        post("/v1/responses", {"input": WORDS, "conversation": "{session}"}, creates=True),
        post("/v1/responses", {"input": WORDS, "previous_response_id": "{response}"}),
        post("/v1/responses", {"input": WORDS, "stream": True}, headers=SEEN),
        post(
            "/v1/responses",
            {
                "input": [{"type": "function_call_output", "call_id": "call_1", "output": "x"}],
                "conversation": "{session}",
            },
        ),
    ],
    "GET /v1/responses/{response_id}": [
        get("/v1/responses/{response}"),
        get("/v1/responses/{response}?stream=true"),
        get("/v1/responses/{response}?stream=true&starting_after=1"),
    ],
    "POST /documents": [post("/documents", TEXT, headers=SEEN | {"Accept": "text/event-stream"})],
    "POST /v1/responses/{response_id}/cancel": [post("/v1/responses/{coming}/cancel")],
}

NOBODYS = {
    "GET /doctor/stream",
    "POST /doctor/stream",
    "GET /models",
    "GET /templates",
    "GET /v1/models",
    "GET /v1/models/{model:path}",
}
"""Routes that need somebody, and show nothing that belongs to anybody."""

ASKS = [ask for asks in OWNED.values() for ask in asks]

BESIDES = {"Last-Event-ID of another session's run": get("/sessions/mine/events", headers=SEEN)}


def test_every_route_has_its_cases() -> None:
    routes = [route for route in ROUTES if isinstance(route, Route)]
    assert len(routes) == len(ROUTES)
    for route in routes:
        for method in (route.methods or set()) - {"HEAD"}:
            name = f"{method} {route.path}"
            kinds = [name in OWNED, name in NOBODYS, is_public(route.path), isinstance(route, AdminRoute)]
            assert kinds.count(True) == 1, f"{name}: who may ask for that, and what is another's?"


class House:
    """A service in which ann has said something, and bob wants to know what."""

    def __init__(self, client: Client, key: Mapping[str, str], gate: asyncio.Event) -> None:
        self.client = client
        self.ann = {**key, "X-User-Id": "ann"}
        self.bob = {**key, "X-User-Id": "bob"}
        self.gate = gate

    async def move_in(self, model: ScriptedModel) -> None:
        self.gate.set()
        first = await self.client.post(
            "/ag-ui", json={"threadId": "anns", "runId": "anns-key", **RUN_INPUT}, headers=self.ann
        )
        messages = (await self.client.get("/sessions/anns/messages", headers=self.ann)).json()["messages"]
        question, answer = messages
        self.gate.clear()
        later = {**self.ann, "Prefer": "respond-async"}
        busy = await self.client.post("/chat", json=HI | {"session_id": "busy"}, headers=later)
        await soon(model.asked(1))
        document = await self.client.post(
            "/documents", json={"text": WORDS, "title": "Handbook", "collection": "handbook"}, headers=self.ann
        )
        self.ids = Ids(
            "anns",
            question["message_id"],
            first.headers["X-Run-Id"],
            answer["message_id"],
            "busy",
            busy.json()["run_id"],
            "anns-key",
            document.json()["document_id"],
        )
        feedback = operation(
            "items.feedback", thread_id="anns", item_ids=[f"{answer['message_id']}.0"], kind="negative"
        )
        assert (await self.client.post("/chatkit", json=feedback, headers=self.ann)).status_code == 200

    async def seen_by_ann(self) -> list[Any]:
        """All that could be changed."""
        paths = [
            "/sessions",
            "/sessions/anns",
            "/sessions/anns/messages",
            "/records",
            "/usage?by=session",
            "/documents",
        ]
        paths += [f"/runs/{self.ids.run}", f"/runs/{self.ids.going}"]
        return [(await self.client.get(path, headers=self.ann)).json() for path in paths]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    gate = asyncio.Event()
    model = ScriptedModel([gate, "Hello there", STOP])
    # Without rates: what is left of them differs from one answer to the next.
    async with served(tmp_path, model, auth="keys", request_rate="0", run_rate="0") as client:
        house = House(client, await made(client, "front"), gate)
        await house.move_in(model)
        yield house
        gate.set()


def shown(response: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    return response.status_code, dict(response.headers), response.content


@pytest.mark.parametrize("ask", [ask for ask in ASKS if not (ask.creates or ask.lists)], ids=lambda ask: ask.name)
async def test_what_is_anothers_is_not_there(house: House, ask: Ask) -> None:
    before = await house.seen_by_ann()
    unknown = await soon(ask.of(house.client, UNKNOWN, house.bob))
    foreign = await soon(ask.of(house.client, house.ids, house.bob))
    assert shown(foreign) == shown(unknown)
    if ask.path.startswith("/api/chat/{busy}"):
        assert (foreign.status_code, foreign.content) == (204, b"")
    else:  # of results that belong to no call, nobody asks where that was
        assert foreign.status_code == (400 if "function_call_output" in ask.name else 404)
    assert await house.seen_by_ann() == before
    house.gate.set()
    own = await soon(ask.of(house.client, house.ids, house.ann))
    assert own.status_code < 500
    if not (ask.path.endswith("/stop") or "function_call_output" in ask.name):
        assert shown(own) != shown(foreign)


@pytest.mark.parametrize("ask", [ask for ask in ASKS if ask.creates], ids=lambda ask: ask.name)
async def test_what_is_anothers_is_no_place_for_what_is_new(house: House, ask: Ask) -> None:
    before = await house.seen_by_ann()
    foreign = await soon(ask.of(house.client, house.ids, house.bob))
    problem = foreign.json().get("error", foreign.json())
    text = problem.get("message", problem.get("detail"))
    assert (foreign.status_code, problem["code"], text) == (404, "not_found", "There is no such session.")
    assert await house.seen_by_ann() == before
    house.gate.set()
    own = await soon(ask.of(house.client, house.ids, house.ann))
    assert own.status_code in (200, 204, 409)


@pytest.mark.parametrize("ask", [ask for ask in ASKS if ask.lists], ids=lambda ask: ask.name)
async def test_what_is_anothers_is_on_no_list(house: House, ask: Ask) -> None:
    unknown = await ask.of(house.client, UNKNOWN, house.bob)
    foreign = await ask.of(house.client, house.ids, house.bob)
    assert foreign.status_code == 200
    assert shown(foreign) == shown(unknown)
    own = await ask.of(house.client, house.ids, house.ann)
    assert shown(own) != shown(foreign)


async def test_the_events_of_anothers_run_are_not_those_of_ones_own_session(house: House) -> None:
    await house.client.post("/sessions", json={"session_id": "mine"}, headers=house.bob)
    for ask in BESIDES.values():
        assert shown(await ask.of(house.client, house.ids, house.bob)) == shown(
            await ask.of(house.client, UNKNOWN, house.bob)
        )


KEYED = [
    post("/chat", HI),
    post("/api/chat", {"messages": TURNS}),
    post("/api/chat", {"id": "{user}", "messages": PARTS}),
    post("/query", {"prompt": WORDS}),
    post("/query/stream", {"prompt": WORDS}),
    post("/chatkit", operation("threads.create", input=said(WORDS))),
    post("/ag-ui", {"threadId": "{user}", "runId": "same", **RUN_INPUT}),
    post("/v1/chat/completions", {"messages": TURNS}),
    post("/v1/responses", {"input": WORDS}),
]


@pytest.mark.parametrize("ask", KEYED, ids=lambda ask: ask.name)
async def test_two_users_may_choose_the_same_idempotency_key(house: House, ask: Ask) -> None:
    house.gate.set()
    key = {} if ask.path == "/ag-ui" else {"Idempotency-Key": "same"}
    answers = []
    for user in ("ann", "bob", "ann", "bob"):
        who = {**(house.ann if user == "ann" else house.bob), **key}
        ids = Ids("", "", "", "", "", "", "", "", user=user)
        answers.append(await soon(ask.of(house.client, ids, who)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.headers["X-User-Id"] for answer in answers] == ["ann", "bob"] * 2
    runs = [answer.headers["X-Run-Id"] for answer in answers]
    assert runs[0] != runs[1]
    assert runs[2:] == runs[:2]


async def test_the_server_in_front_sees_everything_where_it_names_nobody(house: House) -> None:
    front = {"Authorization": house.ann["Authorization"]}
    assert (await house.client.get(f"/runs/{house.ids.run}", headers=front)).status_code == 200
    assert len((await house.client.get("/sessions", headers=front)).json()["sessions"]) == 2
    named = (await house.client.get("/sessions?user_id=bob", headers=front)).json()["sessions"]
    assert named == []
