import pytest

from handlers.bodies import SEARCH_CHARS
from tests.serving import Client


async def say(client: Client, text: str, **body: str) -> str:
    """The session's id, when the answer, "Hello there", is there."""
    response = await client.post("/chat", json={"message": text, "stream": False, **body})
    return str(response.json()["session_id"])


async def test_search_finds_what_was_said_and_answered(client: Client) -> None:
    session_id = await say(client, "Where is “Zürich”?", user_id="ann")
    found = (await client.get("/search", params={"q": "zurich"})).json()
    [asked, _] = (await client.get(f"/sessions/{session_id}/messages")).json()["messages"]
    assert found == {
        "results": [
            {
                "session_id": session_id,
                "message_id": asked["message_id"],
                "role": "user",
                "snippet": "Where is “Zürich”?",
                "matches": [{"start": 10, "end": 16}],
                "created_at": asked["created_at"],
            }
        ],
        "next": None,
    }
    [answer] = (await client.get("/search", params={"q": "there", "user_id": "ann"})).json()["results"]
    assert (answer["role"], answer["snippet"]) == ("assistant", "Hello there")


async def test_search_is_for_a_user_or_a_session_in_pages(client: Client) -> None:
    for number in range(5):
        await say(client, f"tea {number}", user_id="bob" if number else "ann", session_id=f"s{number}")
    page = (await client.get("/search", params={"q": "tea", "user_id": "bob", "limit": 3})).json()
    assert [hit["session_id"] for hit in page["results"]] == ["s4", "s3", "s2"]
    await say(client, "tea tea tea", user_id="bob")
    query = {"q": "tea", "user_id": "bob", "limit": 3, "after": page["next"]}
    page = (await client.get("/search", params=query)).json()
    assert ([hit["session_id"] for hit in page["results"]], page["next"]) == (["s1"], None)
    [hit] = (await client.get("/search", params={"q": "tea", "session_id": "s0"})).json()["results"]
    assert hit["session_id"] == "s0"
    assert (await client.delete("/sessions/s0")).status_code == 204
    assert (await client.get("/search", params={"q": "tea", "session_id": "s0"})).json()["results"] == []


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"q": ""},
        {"q": " \t"},
        {"q": '"*" - ()'},
        {"q": "a" * (SEARCH_CHARS + 1)},
        {"q": "a " * 33},
        {"q": "a", "limit": "0"},
        {"q": "a", "limit": "51"},
        {"q": "a", "after": "nonsense"},
        {"q": "a", "user_id": "a b"},
        {"q": "a", "session_id": ""},
    ],
)
async def test_search_for_nothing_is_refused(client: Client, query: dict[str, str]) -> None:
    response = await client.get("/search", params=query)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
