import re

import pytest

from tests.serving import Client


@pytest.mark.parametrize("path", ["/docs", "/playground"])
async def test_page_brings_everything_from_here(client: Client, path: str) -> None:
    response = await client.get(path)
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert not re.findall(r"<script>|\son[a-z]+=|(?:src|href)=\"(?:https?:)?//", response.text)
    files = re.findall(r'(?:src|href)="/?(static/[^"]+)"', response.text)
    assert files
    for file in files:
        found = await client.get(f"/{file}")
        assert found.status_code == 200
        assert found.headers["content-security-policy"]
        assert len(found.content) > 100


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "%2e%2e",
        "..%2fpages.py",
        "%2Fetc%2Fpasswd",
        "swagger-ui.css%00",
        "index.html",
        "__init__.py",
    ],
)
async def test_no_other_file_is_given_away(client: Client, name: str) -> None:
    response = await client.get(f"/static/{name}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_file_that_has_not_changed_is_not_sent_again(client: Client) -> None:
    first = await client.get("/static/swagger-ui.css")
    again = await client.get("/static/swagger-ui.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    other = await client.get("/static/swagger-ui.css", headers={"If-None-Match": '"another"'})
    assert other.status_code == 200
