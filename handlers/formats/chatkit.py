"""ChatKit's stream, made without ``openai-chatkit``, whose ``chatkit.types.ThreadStreamEvent`` says what it is."""

import json
from collections.abc import Collection, Iterable, Sequence
from json.encoder import encode_basestring

from chat.errors import ChatError
from chat.events import Event, TextDelta
from chat.runs import Run
from handlers.formats.chatkit_items import AnswerItems, Members, failure, text_delta
from handlers.formats.encoder import Encoder
from handlers.formats.frames import PING


class ChatKitEvents(Encoder):
    """A run for ChatKit's widget. ``begin`` are the events that its stream has ahead of the run's.

    The widget does not resume: what it asks for after a lost connection, it gets from the beginning. The ids are for
    other clients. ``decided`` are calls that the client has just said yes or no to: it has the run up to there.

    A stream ends where everything waits for such a yes: the client asks again with what was said.
    """

    replays = True

    def __init__(self, begin: Iterable[Members] = (), *, decided: Collection[str] = ()) -> None:
        self._begin = list(begin)
        self._decided = frozenset(decided)
        self._after = 0
        self._answer: AnswerItems
        self._head = ""
        """What stands before a delta of the open message; empty where more has to be said before it."""

    def opening(self, run: Run, after: int) -> bytes:
        self._after = after
        self._answer = AnswerItems(run.session_id, run.id, run.answer_id, run.created_at)
        return _framed(f"{run.id}.{after}", self._begin) or PING

    def encode(self, run_id: str, first_seq: int, events: Sequence[Event]) -> bytes:
        frames = [self._frame(f"{run_id}.{seq}", event) for seq, event in enumerate(events, first_seq)]
        return b"".join(frames[max(0, self._after + 1 - first_seq) :])

    def trouble(self, error: ChatError) -> bytes:
        return _framed(None, [failure(error.message, allow_retry=True)])

    def leaving(self, milliseconds: int) -> bytes:
        message = f"The answer goes on elsewhere: try again in {milliseconds} ms."
        return _framed(None, [failure(message, allow_retry=True)])

    def _frame(self, event_id: str, event: Event) -> bytes:
        if self._head and isinstance(event, TextDelta):
            # Nearly all of them are: the same bytes as below, at a fraction of the cost.
            self._answer.texts.append(event.text)
            return f"id: {event_id}\ndata: {self._head}{encode_basestring(event.text)}}}}}\n\n".encode()
        frame = _framed(event_id, self._answer.say(event))
        message = self._answer.message
        self._head = "" if message is None else _head(message["id"])
        waiting = self._answer.waiting.keys()
        everything_waits = bool(waiting) and waiting == self._answer.unanswered.keys()
        self.rest = PING if everything_waits and self._decided.isdisjoint(waiting) else b""
        return frame


def _head(item_id: str) -> str:
    update = {"type": "thread.item.updated", "item_id": item_id, "update": text_delta("")}
    return json.dumps(update, ensure_ascii=False).removesuffix('""}}')


def _framed(event_id: str | None, told: Iterable[Members]) -> bytes:
    """A record for each event. Only the last has the id: a client that saw but the first has not seen all of them."""
    records = [f"data: {json.dumps(members, ensure_ascii=False)}\n\n" for members in told]
    if event_id is not None and records:
        records[-1] = f"id: {event_id}\n{records[-1]}"
    return "".join(records).encode()
