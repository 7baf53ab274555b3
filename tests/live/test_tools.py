"""Tools in a real process: the town hall's conversation, and a crash in the middle of a call."""

from pathlib import Path

import pytest

from chat.generation import LOST
from tests.live.conftest import Serve
from tests.upstream import Upstream, calling, completion

LOCKERS = (
    "hi there i would like to give some feedback, I would like to suggest we should have lockers in ginza station "
    "because people shop there more, it's hard to bring your shopping bags everywhere. My name is jao garcia. I have "
    "nothing else to say?"
)
FEEDBACK = {"feedback": "Lockers in Ginza station, for shopping bags.", "topic": "Ginza station", "name": "jao garcia"}


async def test_town_halls_conversation(serve: Serve) -> None:
    replies = (
        completion("Hello! ", "How can I help?"),
        completion("You said: ", "Hi there."),
        calling("call_1", "submit_feedback", FEEDBACK),
        completion("Thank you, ", "jao garcia."),
    )
    async with Upstream(*replies) as upstream:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="gpt-test", TOOLS="examples.town_hall")
        for text in ("Hi there", "What did I just say?"):
            await service.ended(await service.begin(text, session_id="test-user-123"))
        run_id = await service.begin(LOCKERS, session_id="test-user-123", user_id=None)
        frames = await service.follow(run_id, format="events")
        assert [frame.event for frame in frames][:6] == [
            "run.started", "tool.started", "tool.delta", "tool.delta", "tool.called", "tool.finished",
        ]  # fmt: skip
        assert (frames[-1].event, await service.answer(run_id)) == ("run.completed", "Thank you, jao garcia.")
        [record] = (await service.client.get("/records?kind=feedback&session_id=test-user-123")).json()["records"]
        assert (record["data"], record["run_id"]) == (FEEDBACK, run_id)
        asked = [(await upstream.request(number)).body for number in range(4)]
        assert asked[0]["messages"][0]["role"] == "system"
        assert "town hall" in asked[0]["messages"][0]["content"]
        assert [tool["function"]["name"] for tool in asked[0]["tools"]] == ["report_incident", "submit_feedback"]
        assert [turn["role"] for turn in asked[3]["messages"][-2:]] == ["assistant", "tool"]
        assert record["record_id"] in asked[3]["messages"][-1]["content"]
        [session] = (await service.client.get("/sessions")).json()["sessions"]
        assert session["session_id"] == "test-user-123"


@pytest.mark.parametrize("after", [0, 2, 4])
async def test_call_that_a_crash_cut_off_is_not_made_again(serve: Serve, after: int) -> None:
    replies = (calling("call_1", "launch", {"name": "the rocket"}), completion("I do not ", "know."))
    async with Upstream(*replies) as upstream:
        service = await serve()
        service.settings |= {
            "BASE_URL": upstream.base_url, "MODEL_NAME": "gpt-test", "TOOLS": "tests.live.slow_tool",
            "TMPDIR": str(service.folder),
        }  # fmt: skip
        await service.restart()
        run_id = await service.begin("Launch it")
        launched = Path(service.folder, "launched")
        async with service.stream("GET", f"/runs/{run_id}/events", params={"format": "events"}) as stream:
            async for frame in stream:
                if frame.event == "tool.called":
                    break
        while not (launched.exists() and launched.read_text().endswith("\n")):
            assert (await service.client.get("/health")).status_code == 200
        await service.kill()
        await service.start()
        frames = await service.follow(run_id, after, format="events")
        assert [frame.seq for frame in frames[1:]] == list(range(after + 1, after + len(frames)))
        assert [frame.event for frame in frames if frame.event != "text.delta"][-3:] == [
            "seam", "tool.finished", "run.completed",
        ]  # fmt: skip
        assert launched.read_text() == "the rocket\n"
        told = (await upstream.request(1)).body["messages"][-1]
        assert told == {"role": "tool", "tool_call_id": "call_1", "content": f"Error: {LOST}"}
