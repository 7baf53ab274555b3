"""Server-Sent Events as bytes: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream"""

import json
import re
from collections.abc import Mapping

# A lone CR ends a line too: in a data line it would cut the text off, in JSON it is escaped.
PING = b": ping\n\n"
"""A comment: it keeps proxies and clients from giving up on a stream in which nothing happens."""

_NEWLINE = re.compile("\r\n|\n|\r")


def cursor_only(run_id: str, seq: int, comment: str = "") -> bytes:
    """A frame that dispatches nothing in a client and still moves its ``Last-Event-ID``.

    ``comment`` is one line of ours, for people: none of what others have written, which could end it.
    """
    said = f": {comment}\n" if comment else ""
    return f"id: {run_id}.{seq}\n{said}\n".encode()


def text_frame(run_id: str, seq: int, text: str) -> bytes:
    """An unnamed event with the text as its data, a data line for each of its lines."""
    return f"id: {run_id}.{seq}\n".encode() + text_part(text)


def text_part(text: str) -> bytes:
    """The same without an id: more of the event is to come, and only its last part moves the cursor."""
    if "\n" in text or "\r" in text:
        text = "\ndata: ".join(_NEWLINE.split(text))
    return f"data: {text}\n\n".encode()


def json_frame(run_id: str, seq: int, event: str, data: Mapping[str, object]) -> bytes:
    """A named event with JSON data, on one line."""
    return f"id: {run_id}.{seq}\nevent: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def notice(event: str, data: Mapping[str, object]) -> bytes:
    """A named event without an id: it is in no log, and does not move the cursor."""
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def retry(milliseconds: int) -> bytes:
    """Tells EventSource how long to wait before it reconnects."""
    return f"retry: {milliseconds}\n\n".encode()
