"""Answers from documents, on a real server: what an answer is from survives the process that found it."""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path

import httpx

from tests.embedding import EmbeddingServer
from tests.knowledge.pdfs import pdf, text
from tests.live.conftest import Serve
from tests.live.service import PATIENCE, Service

GUIDE = "# Hours\n\nThe shop opens at nine.\n\n# Prices\n\nTea is free.\n"


async def add(service: Service, said: str = GUIDE) -> str:
    body = {"text": said, "title": "Guide", "collection": "handbook", "media_type": "text/markdown"}
    response = await service.client.post("/documents", json=body)
    assert response.status_code == 201
    return str(response.headers["Location"])


async def test_killed_answer_goes_on_with_the_passages_that_it_began_with(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0.05")
    document = await add(service)
    question = "When does the shop open? " + "word " * 40
    body = {"message": question, "collection": "handbook", "session_id": "s", "format": "events"}
    run_id, shown = "", 0
    async with service.stream("POST", "/chat", json=body) as stream:
        async for frame in stream:
            run_id = run_id or str(frame.id).partition(".")[0]
            shown += frame.event == "text.delta"
            if shown == 3:
                break
    await service.restart()
    assert (await service.client.delete(document)).status_code == 204
    log = await service.follow(run_id, format="events")
    names = [frame.event for frame in log if frame.event]
    first = names.index("source")
    assert names[:first] in ([], ["run.started"])
    assert (names.count("source"), names.count("seam"), names[-1]) == (1, 1, "run.completed")
    messages = (await service.client.get("/sessions/s/messages")).json()["messages"]
    assert messages[-1]["content"] == question
    [source] = messages[-1]["sources"]
    assert (source["place"], source["text"]) == ("Hours, paragraph 1", "# Hours\n\nThe shop opens at nine.")


async def test_pdf_that_is_sent_as_a_file_answers_with_its_page(serve: Serve) -> None:
    service = await serve(STREAM_DELAY="0")
    where = {"collection": "handbook"}
    pages = pdf(text("Tea is free."), text("The shop opens at nine."))
    file = {"file": ("handbook.pdf", pages, "application/pdf")}
    response = await service.client.post("/documents", data=where, files=file)
    assert (response.status_code, response.json()["title"], response.json()["chunks"]) == (201, "handbook.pdf", 2)
    assert await places_for(service, "When does it open, at nine?") == ["page 2"]
    file = {"file": ("secret.pdf", pdf(text("Tea."), trailer=b"/Encrypt << >>"), "application/pdf")}
    refused = await service.client.post("/documents", data=where, files=file)
    assert (refused.status_code, refused.json()["code"]) == (422, "document_encrypted")


async def reading(service: Service) -> None:
    """Until a process of it is in the middle of a document: it has used more CPU than it takes to come there."""
    assert service.process is not None
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    async with asyncio.timeout(PATIENCE):
        while True:
            for child in children.read_text().split():
                ticks = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11]
                if int(ticks) > os.sysconf("SC_CLK_TCK"):
                    return
            await asyncio.sleep(0.01)


async def test_port_is_free_when_a_process_died_whose_reader_still_reads(serve: Serve) -> None:
    service = await serve()
    held = {"text": "<a " * 330_000, "title": "Slow", "collection": "handbook", "media_type": "text/html"}
    sending = asyncio.create_task(service.client.post("/documents", json=held))
    await reading(service)
    await service.restart()
    await asyncio.wait({sending})
    assert isinstance(sending.exception(), httpx.TransportError)
    assert await add(service)


def embedded_by(upstream: EmbeddingServer) -> dict[str, str]:
    """The settings for it."""
    return {"STREAM_DELAY": "0", "EMBEDDING_MODEL": "counter", "EMBEDDING_BASE_URL": f"{upstream.url}/v1"}


async def until_embedded(service: Service, document: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while (found := (await service.client.get(document)).json())["embedded"] < found["chunks"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def places_for(service: Service, question: str) -> list[str]:
    body = {"message": question, "collection": "handbook", "format": "events"}
    async with service.stream("POST", "/chat", json=body) as stream:
        return [json.loads(frame.data)["place"] async for frame in stream if frame.event == "source" and frame.data]


async def test_what_is_said_in_other_words_is_found_and_embedded_once_whatever_dies(serve: Serve) -> None:
    async with EmbeddingServer() as upstream:
        service = await serve(**embedded_by(upstream))
        document = await add(service)
        await until_embedded(service, document)
        assert (await places_for(service, "any beverage"))[0] == "Prices, paragraph 1"
        assert upstream.texts[-1] == "any beverage"
        await service.restart()
        second = await add(service, "# Pets\n\nNo dog.")
        await until_embedded(service, second)
        assert (await places_for(service, "puppy"))[0] == "Pets, paragraph 1"
        assert set(Counter(upstream.texts).values()) == {1}


async def test_document_is_found_by_words_while_nothing_can_be_embedded_and_by_meaning_later(serve: Serve) -> None:
    async with EmbeddingServer() as upstream:
        upstream.status = 503
        service = await serve(**embedded_by(upstream))
        document = await add(service)
        await upstream.until(texts=2)
        assert (await service.client.get(document)).json()["embedded"] == 0
        assert await places_for(service, "tea") == ["Prices, paragraph 1"]
        assert await places_for(service, "beverage") == []
        upstream.status = 200
        await until_embedded(service, document)
        assert (await places_for(service, "beverage"))[0] == "Prices, paragraph 1"


async def test_workers_do_not_pay_for_the_same_batch_twice(serve: Serve) -> None:
    async with EmbeddingServer() as upstream:
        service = await serve(WORKERS="2", **embedded_by(upstream))
        documents = [await add(service, f"tea number {number}") for number in range(20)]
        for document in documents:
            await until_embedded(service, document)
        assert sorted(upstream.texts) == sorted(f"Guide\nparagraph 1\n\ntea number {number}" for number in range(20))
