"""What a request to the model has room for, and what is cut where it is too much."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import dropwhile

from chat.ports import ModelRequest
from chat.sessions import Turn
from chat.steps import Call, Step

MESSAGE_OVERHEAD = 16
"""Bytes that a message costs besides its text: its role and the separators of a chat template, about 4 tokens."""

RUN_SHARE = 2
"""One part in so many of the context is for what tools have answered in the run; the others keep the conversation."""

TURN_SHARE = 4
"""The same for the calls of one earlier turn: else a single long answer would push all before it out."""


def fitted_request(request: ModelRequest, room: int) -> ModelRequest:
    """The request within ``room`` UTF-8 bytes: what tools have answered is cut, then the oldest turns are left out.

    The system's messages, the last one and what the model has said in this run are sent whatever they take.
    """
    steps = shortened(request.steps, room // RUN_SHARE)
    room -= sum(_bytes(step.text) for step in steps) + _bytes_of(steps)
    return replace(request, messages=fitted(request.messages, room), steps=steps)


def fitted(messages: Sequence[Turn], room: int) -> Sequence[Turn]:
    """The messages without the oldest that have no room; what the system says stays, and so does the last one."""
    history = list(dropwhile(lambda turn: turn.role == "system", messages))
    system = messages[: len(messages) - len(history)]
    room -= sum(map(size_of, system))
    kept = 0
    for turn in reversed(history):
        room -= size_of(turn)
        if kept and room < 0:
            break
        kept += 1
    return [*system, *beginning_with_a_question(history[len(history) - kept :])]


def size_of(turn: Turn) -> int:
    """Bytes, as the stores count them for a branch; at most that, because they keep the calls as JSON."""
    overhead = 0 if turn.role == "system" else MESSAGE_OVERHEAD
    return overhead + _bytes(turn.content) + _bytes_of(turn.steps)


def beginning_with_a_question(history: Sequence[Turn]) -> Sequence[Turn]:
    """The turns without the answers at their head whose question was cut off; the last one stays."""
    first = 0
    while first < len(history) - 1 and history[first].role == "assistant":
        first += 1
    return history[first:]


def turns_within(turns: Sequence[Turn], budget: int) -> Sequence[Turn]:
    """The turns with what their tools have answered in its share of ``budget`` bytes; those that are empty then are
    left out. What the last one's calls have answered is what is asked about: it has as much as a run's own steps.
    """
    cut = [replace(turn, steps=earlier(turn.steps, budget // TURN_SHARE)) for turn in turns[:-1]]
    cut += [replace(turn, steps=shortened(turn.steps, budget // RUN_SHARE)) for turn in turns[-1:]]
    return [turn for turn in cut if turn.content or turn.steps]


def earlier(steps: Sequence[Step], room: int) -> Sequence[Step]:
    """The steps of an earlier turn in ``room`` bytes; none if what the model wrote to its tools is more already."""
    room -= sum(_bytes(call.arguments) for step in steps for call in step.calls)
    return shortened(steps, room) if room >= 0 else ()


def shortened(steps: Sequence[Step], room: int) -> Sequence[Step]:
    """The steps, with what their tools have answered in ``room`` bytes: short answers whole, long ones equally long."""
    sizes = [_bytes(_answer(call)) for step in steps for call in step.calls]
    if sum(sizes) <= room:
        return steps
    longest = _longest(sizes, room)
    return tuple(replace(step, calls=tuple(_cut(call, longest) for call in step.calls)) for step in steps)


def _longest(sizes: Iterable[int], room: int) -> int:
    """The size that each may have for all to fit: they do not as they are."""
    rest = sorted(sizes, reverse=True)
    while rest[-1] <= room // len(rest):
        room -= rest.pop()
    return room // len(rest)


def _cut(call: Call, longest: int) -> Call:
    text = _answer(call)
    if _bytes(text) <= longest:
        return call
    note = f"\n[Cut. It has {len(text):,} characters.]"
    text = text.encode(errors="replace")[: max(longest - len(note), 0)].decode(errors="ignore") + note
    return replace(call, error=text) if call.result is None else replace(call, result=text)


def _answer(call: Call) -> str:
    return call.result if call.result is not None else call.error or ""


def _bytes_of(steps: Iterable[Step]) -> int:
    return sum(_bytes(call.arguments) + _bytes(_answer(call)) for step in steps for call in step.calls)


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))
