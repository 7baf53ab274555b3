"""The embedder against a real socket."""

import base64
import json
import logging
from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from chat import model
from chat.errors import ModelError
from chat.model import OpenAIEmbedder
from tests.asking import AUTH, INVALID, KEY, RATE_LIMITED, REJECTED, TIMEOUT, UNAVAILABLE, UNREACHABLE, Kind, kind
from tests.patience import PATIENCE, soon
from tests.upstream import Action, End, Reply, Upstream, refusal, reply

JSON = {"Content-Type": "application/json"}


def answer(*vectors: Sequence[float], encoded: bool = True) -> Reply:
    def written(numbers: Sequence[float]) -> object:
        return base64.b64encode(array("f", numbers).tobytes()).decode() if encoded else numbers

    data = [{"object": "embedding", "index": place, "embedding": written(one)} for place, one in enumerate(vectors)]
    return reply(json.dumps({"object": "list", "data": data, "model": "m"}).encode(), headers=JSON)


@asynccontextmanager
async def embedder_at(base_url: str, dimensions: int | None = None) -> AsyncGenerator[OpenAIEmbedder, None]:
    embedder = OpenAIEmbedder(
        name="test/embed",
        base_url=base_url,
        api_key=KEY,
        model="embed",
        dimensions=dimensions,
        connect_timeout=5,
    )
    try:
        yield embedder
    finally:
        await embedder.close()


async def failure_of(embedder: OpenAIEmbedder, seconds: float = PATIENCE) -> ModelError:
    with pytest.raises(ModelError) as raised:
        await embedder.embed(["secret text"], seconds)
    return raised.value


async def test_texts_are_sent_in_one_request_and_come_back_as_vectors() -> None:
    async with Upstream(answer([3, 4], [0, 2])) as upstream, embedder_at(upstream.base_url) as embedder:
        vectors = await soon(embedder.embed(["one", "two"], PATIENCE))
        request = await upstream.request(0)
    assert [array("f", vector).tolist() for vector in vectors] == [pytest.approx([0.6, 0.8]), [0, 1]]
    assert request.path == "/v1/embeddings"
    assert request.body == {"input": ["one", "two"], "model": "embed", "encoding_format": "base64"}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert embedder.name == "test/embed"


async def test_dimensions_are_asked_for_and_numbers_are_understood() -> None:
    async with (
        Upstream(answer([3, 4], encoded=False)) as upstream,
        embedder_at(upstream.base_url, dimensions=2) as embedder,
    ):
        [vector] = await soon(embedder.embed(["one"], PATIENCE))
        assert (await upstream.request(0)).body["dimensions"] == 2
    assert array("f", vector).tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    ("status", "expected", "final"),
    [
        (302, REJECTED, False),
        (400, REJECTED, True),
        (401, AUTH, False),
        (403, AUTH, False),
        (404, REJECTED, False),
        (413, REJECTED, True),
        (422, REJECTED, True),
        (429, RATE_LIMITED, False),
        (500, UNAVAILABLE, False),
        (503, UNAVAILABLE, False),
    ],
)
async def test_refusal_is_told_apart_and_made_once(status: int, expected: Kind, final: bool) -> None:
    body = {"error": {"message": "secret", "code": "too_bad"}}
    async with (
        Upstream(refusal(status, body, retry_after="7")) as upstream,
        embedder_at(upstream.base_url) as embedder,
    ):
        error = await failure_of(embedder)
        assert len(upstream.requests) == 1
    assert kind(error) == expected
    assert error.final is final
    assert error.retry_after == (7 if error.transient else None)


async def test_log_names_the_model_and_what_was_wrong_and_no_text(caplog: pytest.LogCaptureFixture) -> None:
    body = {"error": {"message": "secret", "code": "bad_key"}}
    async with Upstream(refusal(401, body)) as upstream, embedder_at(upstream.base_url) as embedder:
        await failure_of(embedder)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        "model test/embed: upstream_auth (status 401 bad_key)",
    )


async def test_server_that_is_not_there_is_unreachable() -> None:
    async with embedder_at("http://127.0.0.1:1/v1") as embedder:
        assert kind(await failure_of(embedder)) == UNREACHABLE


async def test_silence_ends_in_time() -> None:
    async with Upstream(reply(End.HOLD)) as upstream, embedder_at(upstream.base_url) as embedder:
        assert kind(await failure_of(embedder, 0.2)) == TIMEOUT


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (b"<html>", INVALID),
        (b'{"data": []}', INVALID),
        (End.CLOSE, UNREACHABLE),
        (End.ABORT, UNREACHABLE),
    ],
)
async def test_answer_that_is_none_is_said_to_be_none(action: Action, expected: Kind) -> None:
    async with (
        Upstream(reply(b'{"data"', action, headers=JSON)) as upstream,
        embedder_at(upstream.base_url) as embedder,
    ):
        assert kind(await failure_of(embedder)) == expected


async def test_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_VECTORS_BYTES", 1_000)
    async with (
        Upstream(reply(b" " * 1_001, End.HOLD, headers=JSON)) as upstream,
        embedder_at(upstream.base_url) as embedder,
    ):
        assert kind(await failure_of(embedder)) == INVALID
        await soon((await upstream.request(0)).closed.wait())
