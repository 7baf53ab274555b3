"""Every encoder's streams, byte for byte as they were when somebody looked.

After a change that is meant, ``WRITE_GOLDEN=1 pytest`` writes the files; what has changed in them, the commit shows.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from chat.events import Event
from chat.terms import Terms, ToolSpec
from handlers.formats import FORMATS, LINES
from handlers.formats.ag_ui import AgUiEvents
from handlers.formats.chatkit import ChatKitEvents
from handlers.formats.completions import CompletionChunks
from handlers.formats.encoder import Encoder
from handlers.formats.responses import ResponseEvents
from handlers.formats.ui_messages import Told, UIMessages
from tests.stories import DECIDED, STEPS, STORIES, WAITS, told

GOLDEN = Path(__file__).parent / "golden"
OPTIONS = {"type": "stream_options", "stream_options": {"allow_cancel": False}}
TERMS = Terms(
    "Both prompts",
    [ToolSpec("look", "Looks.", {"type": "object"}, strict=True)],
    {"temperature": 0.5},
    {"instructions": "Be kind", "metadata": {"a": "b"}, "temperature": 0.5, "previous_response_id": "resp_0"},
)


def encoder(name: str) -> Encoder:
    match name:
        case "ag_ui":
            return AgUiEvents("thread", "run")
        case "chatkit":
            return ChatKitEvents([OPTIONS])
        case "completions":
            return CompletionChunks(("look",), usage=True)
        case "lines":
            return LINES
        case "responses":
            return ResponseEvents(TERMS)
        case "ui_messages":
            return UIMessages(tools=["look"])
        case _:
            return FORMATS[name]


def same_as_in(file: Path, found: bytes) -> bool:
    if os.environ.get("WRITE_GOLDEN"):
        file.write_bytes(found)
    return found.decode() == file.read_bytes().decode()


@pytest.mark.parametrize("name", [*FORMATS, "lines", "completions", "responses", "ag_ui", "chatkit", "ui_messages"])
def test_streams_are_the_golden_ones(name: str) -> None:
    streams = [f"=== {title}\n".encode() + told(encoder(name), log) for title, log in STORIES.items()]
    assert same_as_in(GOLDEN / f"{name}.txt", b"".join(streams))


@pytest.mark.parametrize(
    ("name", "options", "log"),
    [
        ("decided", {"decided": ["call_1", "call_2"], "message_id": "theirs"}, [*WAITS, *DECIDED]),
        ("earlier", {"earlier": [Told("run_0", STEPS[:-1])], "message_id": "first"}, STORIES["text"]),
    ],
)
def test_sdk_goes_on_with_the_golden_message(name: str, options: dict[str, Any], log: list[Event]) -> None:
    assert same_as_in(GOLDEN / f"ui_messages_{name}.txt", told(UIMessages(**options), log))
