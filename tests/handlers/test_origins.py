from pathlib import Path
from typing import Any

import pytest

from tests.serving import Client, served

OURS, THEIRS = "https://chat.example.org", "https://evil.example"
SAID = {"message": "Hi"}


async def started(client: Client) -> int:
    return len((await client.get("/sessions")).json()["sessions"])


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("origin", [None, THEIRS, "null", "http://localhost:3000", f"{OURS}.evil.example"])
async def test_a_foreign_page_starts_and_changes_nothing(tmp_path: Path, site: str, origin: str | None) -> None:
    headers = {"Sec-Fetch-Site": site} | ({} if origin is None else {"Origin": origin})
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/chat?message=Hi", None),
        ("HEAD", "/chat?message=Hi", None),
        ("POST", "/chat", SAID),
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("POST", "/sessions", {}),
        ("PATCH", "/sessions/one", {"title": "theirs"}),
        ("DELETE", "/sessions/one", None),
    ]
    async with served(tmp_path, allowed_origins=OURS) as client:
        await client.post("/sessions", json={"session_id": "one"})
        for method, path, body in asked:
            refused = await client.request(method, path, json=body, headers=headers)
            assert refused.status_code == 403, path
        assert refused.json()["code"] == "foreign_page"
        assert [session["title"] for session in (await client.get("/sessions")).json()["sessions"]] == [None]
        assert (await client.get("/sessions", headers=headers)).status_code == 200  # it cannot read that


@pytest.mark.parametrize(
    ("named", "headers"),
    [
        (OURS, {}),  # a program
        (OURS, {"Origin": THEIRS}),  # likewise: browsers say where the page is
        (OURS, {"Sec-Fetch-Site": "none"}),  # typed by hand
        (OURS, {"Sec-Fetch-Site": "same-origin", "Origin": THEIRS}),  # of the proxy in front
        (OURS, {"Sec-Fetch-Site": "cross-site", "Origin": OURS}),
        ("*", {"Sec-Fetch-Site": "cross-site", "Origin": THEIRS}),
        (None, {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}),
        (None, {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"}),
    ],
)
async def test_everybody_else_is_answered(tmp_path: Path, named: str | None, headers: dict[str, str]) -> None:
    async with served(tmp_path, allowed_origins=named) as client:
        assert (await client.get("/chat?message=Hi", headers=headers)).status_code == 200
        assert (await client.post("/chat", json=SAID, headers=headers)).status_code == 200
        assert await started(client) == 2


async def test_an_image_of_any_page_starts_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, allowed_origins="*") as client:
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert (await client.get("/chat?message=Hi", headers=headers)).json()["code"] == "foreign_page"
        assert await started(client) == 0
