"""Answers from documents, on a real server: what an answer is from survives the process that found it."""

from tests.live.conftest import Serve
from tests.live.service import Service

GUIDE = "# Hours\n\nThe shop opens at nine.\n\n# Prices\n\nTea is free.\n"


async def add(service: Service, text: str = GUIDE) -> str:
    body = {"text": text, "title": "Guide", "collection": "handbook", "media_type": "text/markdown"}
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
