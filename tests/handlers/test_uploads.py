"""Documents that come in as files."""

import encodings
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from handlers.uploads import FALSE_BOUNDARIES
from tests.handlers.test_identity import made
from tests.serving import Client, served

NOTES = b"# Hours\n\nFrom nine.\n\n# Prices\n\nNothing."
SHARED = {"collection": "handbook"}

Part = tuple[str | None, bytes, str | None]


def part(name: str = "notes.md", data: bytes = NOTES, media_type: str | None = None) -> tuple[str, Part]:
    return "file", (name, data, media_type)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(
        tmp_path, max_document_bytes=100, max_upload_bytes=3_000, max_body_bytes=400, max_import_files=3
    ) as client:
        yield client


async def test_file_becomes_a_document(client: Client) -> None:
    response = await client.post("/documents", data=SHARED, files=[part()])
    document = response.json()
    assert (response.status_code, response.headers["Location"]) == (201, f"/documents/{document['document_id']}")
    assert (document["title"], document["media_type"], document["chunks"]) == ("notes.md", "text/markdown", 2)
    assert (document["user_id"], document["bytes"]) == (None, len(NOTES))
    assert (await client.get(response.headers["Location"])).json() == document


async def test_fields_say_title_and_user(client: Client) -> None:
    fields = SHARED | {"title": "Notes", "user_id": "ann", "unknown": "x"}
    document = (await client.post("/documents", data=fields, files=[part()])).json()
    assert (document["title"], document["user_id"], document["collection"]) == ("Notes", "ann", "handbook")


async def test_file_is_the_users_who_sends_it(tmp_path: Path) -> None:
    async with served(tmp_path, auth="keys") as client:
        ann = await made(client, "front") | {"X-User-Id": "ann"}
        sent = await client.post("/documents", data=SHARED | {"user_id": "ann"}, files=[part()], headers=ann)
        assert sent.status_code == 201, sent.text
        assert sent.json()["user_id"] == "ann"
        other = await client.post("/documents", data=SHARED | {"user_id": "bob"}, files=[part()], headers=ann)
        assert (other.status_code, other.json()["code"]) == (403, "user_mismatch")
        assert len((await client.get("/documents", headers=ann)).json()["documents"]) == 1


@pytest.mark.parametrize(
    ("name", "said", "media_type"),
    [
        ("a.txt", None, "text/plain"),
        ("a.MD", "application/octet-stream", "text/markdown"),
        ("a.markdown", "Application/Octet-Stream; x=y", "text/markdown"),
        ("a.htm", None, "text/html"),
        ("a.html", None, "text/html"),
        ("a.md", "text/plain; charset=utf-8", "text/plain"),
        ("nothing", "text/markdown", "text/markdown"),
    ],
)
async def test_media_type_is_what_the_part_says_or_else_its_name(
    client: Client, name: str, said: str | None, media_type: str
) -> None:
    # httpx guesses a type where none is given: one that says nothing
    sent = await client.post(
        "/documents", data=SHARED, files=[part(name, b"<p>Tea", said or "application/octet-stream")]
    )
    assert sent.json()["media_type"] == media_type


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("C:\\home\\tea.txt", "tea.txt"),
        ("../../tea.txt", "tea.txt"),
        ("te\x7fa.txt", "tea.txt"),
        ("Tée.txt", "Tée.txt"),
    ],
)
async def test_name_of_a_file_is_no_path(client: Client, sent: str, name: str) -> None:
    document = await client.post("/documents", data=SHARED, files=[part(sent, b"Tea")])
    assert document.json()["title"] == name


@pytest.mark.parametrize(
    ("fields", "files", "status", "code"),
    [
        (SHARED, [], 422, "invalid_request"),
        ({}, [part()], 422, "invalid_request"),
        ({"collection": "a/b"}, [part()], 422, "invalid_request"),
        (SHARED | {"title": ""}, [part()], 422, "invalid_request"),
        (SHARED | {"title": "x" * 301}, [part()], 422, "invalid_request"),
        (SHARED | {"title": "x" * 5_000}, [part()], 413, "body_too_large"),
        (SHARED | {"user_id": "a b"}, [part()], 422, "invalid_request"),
        (SHARED | {"file": "tea"}, [part()], 422, "invalid_request"),
        (SHARED, [("files", part()[1])], 422, "invalid_request"),
        (SHARED, [part(), ("collection", (None, b"other", None))], 422, "invalid_request"),
        (SHARED, [part(" ")], 422, "invalid_request"),
        (SHARED, [part("\x7f")], 422, "invalid_request"),
        (SHARED, [part(), part(), part(), part()], 413, "too_many_files"),
        (dict.fromkeys("abcdefghijklm", "x"), [], 413, "too_many_files"),
        (SHARED, [part(data=b"x" * 101)], 413, "document_too_large"),
        (SHARED, [part(data=b"x" * 3_000)], 413, "body_too_large"),
        (SHARED, [part(data=b"")], 422, "document_empty"),
        (SHARED, [part(data=b"a\0b")], 422, "document_unreadable"),
        (SHARED, [part(data="Zürich".encode("latin-1"))], 422, "document_unreadable"),
        (SHARED, [part("tea.exe", b"MZ")], 415, "unsupported_media_type"),
        (SHARED, [part(media_type="image/png")], 415, "unsupported_media_type"),
    ],
)
async def test_wrong_forms_are_refused(
    client: Client, fields: dict[str, str], files: Sequence[tuple[str, Part]], status: int, code: str
) -> None:
    # A form in any case: without a file httpx would send another kind.
    forms = [(name, (None, text.encode(), None)) for name, text in fields.items()]
    response = await client.post("/documents", files=[*forms, *files])
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert (await client.get("/documents")).json()["documents"] == []


WHOLE = (
    b'--b\r\nContent-Disposition: form-data; name="collection"\r\n\r\nhandbook\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nTea.\r\n--b--\r\n'
)


def test_form_is_a_whole_one() -> None:
    assert WHOLE.endswith(b"--b--\r\n")


@pytest.mark.parametrize("length", range(0, len(WHOLE) - 4, 5))
async def test_form_that_was_cut_off_is_refused(client: Client, length: int) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = await client.post("/documents", content=WHOLE[:length], headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_form")
    assert (await client.post("/documents", content=WHOLE, headers=headers)).status_code == 201


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", WHOLE),
        ("multipart/form-data; boundary=", WHOLE),
        ("multipart/form-data; boundary=other", WHOLE),
        ("multipart/form-data; charset=nothing; boundary=b", WHOLE.replace(b' name="file";', b"")),
        ("multipart/form-data; boundary=b", b"{}"),
        ("multipart/form-data; boundary=b", WHOLE.replace(b"handbook", b"x" * 4_097).replace(b"Tea.", b"")),
        ("multipart/form-data; boundary=b", b"\r\n" * 1_000),
        (f"multipart/form-data; boundary={'b' * 300}", WHOLE),
        ('multipart/form-data; boundary="b', WHOLE),
    ],
)
async def test_what_is_no_form_is_refused(tmp_path: Path, content_type: str, body: bytes) -> None:
    async with served(tmp_path) as client:
        response = await client.post("/documents", content=body, headers={"Content-Type": content_type})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_form")


@pytest.mark.parametrize("content_type", ['multipart/form-data; boundary="b"', "Multipart/Form-Data;BOUNDARY=b;x=y"])
async def test_boundary_may_be_quoted(client: Client, content_type: str) -> None:
    assert (await client.post("/documents", content=WHOLE, headers={"Content-Type": content_type})).status_code == 201


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 4):
        yield body[start : start + 4]


@pytest.mark.parametrize(("times", "status"), [(FALSE_BOUNDARIES, 201), (FALSE_BOUNDARIES + 12, 413)])
async def test_what_looks_like_the_boundary_may_be_there_now_and_then(tmp_path: Path, times: int, status: int) -> None:
    async with served(tmp_path, max_import_files=3) as client:
        whole = WHOLE.replace(b"Tea.", b"\r\n--bZ" * times)
        response = await client.post(
            "/documents",
            content=in_pieces(whole),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        assert response.status_code == status


@pytest.mark.parametrize("charset", ["undefined", "punycode", "nothing", "x" * 60_000])
async def test_charset_of_a_form_does_not_matter(client: Client, charset: str) -> None:
    headers = {"Content-Type": f"multipart/form-data; charset={charset}; boundary=b"}
    known = dict(encodings._cache)
    response = await client.post("/documents", content=WHOLE, headers=headers)
    assert response.status_code == 201
    assert encodings._cache.keys() == known.keys()


async def test_limit_of_files_is_for_files_alone(client: Client) -> None:
    files = [part(data=b"x" * 1_000)]
    elsewhere = await client.post("/sessions", data=SHARED, files=files)
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (413, "body_too_large")
    text = {"text": "x" * 1_000, "title": "T", "collection": "handbook"}
    as_json = await client.post("/documents", json=text)
    assert (as_json.status_code, as_json.json()["code"]) == (413, "body_too_large")
    small = await client.post("/chat", files=[part(data=b"x")])
    assert (small.status_code, small.json()["code"]) == (415, "unsupported_media_type")


OURS, THEIRS = "https://chat.example.org", "https://evil.example"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Origin": THEIRS}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": OURS}, 201),
        ({"Sec-Fetch-Site": "same-origin", "Origin": THEIRS}, 201),
        # By plain HTTP browsers say nothing but the origin.
        ({"Origin": THEIRS}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": OURS}, 201),
        ({"Origin": "http://127.0.0.1:8000", "Host": "127.0.0.1:8000"}, 201),
        ({}, 201),
    ],
)
async def test_a_foreign_page_sends_no_file(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """A browser asks nobody before it sends a form: https://fetch.spec.whatwg.org/#cors-safelisted-request-header"""
    async with served(tmp_path, allowed_origins=OURS) as client:
        sent = await client.post("/documents", data=SHARED, files=[part()], headers=headers)
        assert sent.status_code == status
        assert len((await client.get("/documents")).json()["documents"]) == (status == 201)
