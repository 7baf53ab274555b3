"""What an OpenAI-compatible server streams, as parts of an answer. Pure: no I/O, no await.

https://platform.openai.com/docs/api-reference/chat-streaming is what the servers copy, each with differences of its
own. So what does not look as it should is ignored, as long as no text can be lost by it.
"""

import json
import re
import secrets
import string
from collections.abc import Collection
from contextlib import suppress
from typing import Any, TypeGuard, cast

from chat.citations import Citations
from chat.errors import ModelError
from chat.events import ReasoningDelta, TextDelta, ToolDelta, ToolStarted, Usage
from chat.ports import Finished, Part
from chat.sse import MAX_EVENT_BYTES, SSEDecoder
from chat.texts import text_in

# Far above what any model counts, and it fits the 64-bit columns that it ends in.
MAX_TOKENS = 1 << 40

# "stop", "length", "content_filter": it is stored and shown, so it stays a word.
MAX_REASON_LENGTH = 64

# Calls in one answer; more is a model gone astray.
MAX_CALLS = 64

MAX_NAME_LENGTH = 64

_CALL_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_CALL_LETTERS = string.ascii_letters + string.digits

# Words and short numbers, no more: a key or a piece of a prompt does not fit.
_LABEL = re.compile(r"[A-Za-z][A-Za-z_.]{0,39}|[0-9]{1,5}")

# Moulds in a row that fit no event: some servers put something new into each.
MISSES = 8

_CONTENT = re.compile(rb'"content": ?"([^"]*)"')
# What ends a JSON string, or must not or need not stand in it as it is.
_ESCAPED = re.compile(rb'["\\\x00-\x1f]')


class CompletionDecoder:
    """Turns the bytes of one streamed chat completion into parts.

    ``done`` when nothing more can come: :class:`Finished` is out, or ``failure`` says why it never will be. The
    failure is kept and not raised, because good parts may stand in front of it in the same bytes. ``label`` is for
    the log: what the upstream called its error, or what ours is. ``taken`` are the ids of earlier calls.
    """

    def __init__(self, taken: Collection[str] = ()) -> None:
        self.done = False
        self.failure: ModelError | None = None
        self.label = ""
        self._events = SSEDecoder()
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._mould: _Mould | None = None
        self._misses = 0
        self._calls = _Calls(taken)
        self._citations = Citations()
        self._text_only = False  # the chunk that was read last has text and nothing else to say

    @property
    def ending(self) -> bool:
        """Whether the finish reason has come: only the usage and the end mark are missing, or never come."""
        return self._reason is not None

    def feed(self, data: bytes) -> list[Part]:
        """The parts that ``data`` completes. What comes behind the end is ignored."""
        parts: list[Part] = []
        if self.done:
            return parts
        whole = self._events.idle
        if whole and self._mould is not None:
            if (text := self._mould.text_of(data)) is not None:
                self._misses = 0
                return [TextDelta(text)] if text else parts
            if (texts := self._mould.texts_of(data)) is not None:
                self._misses = 0
                return [TextDelta(text) for text in texts if text]
        self._text_only = False
        try:
            for name, body in self._events.feed(data):
                self._take(name, body, parts)
                if self.done:
                    break
        except ModelError as error:
            self._fail(error)
        except ValueError as error:
            self.label = type(error).__name__
            self._fail(ModelError("upstream_invalid", "The model sent what cannot be read.", retryable=True))
        if whole and self._text_only and self._misses < MISSES:
            self._misses += 1
            self._mould = _Mould.of(data, parts)
        return parts

    def finish(self) -> list[Part]:
        """The last parts, at the end of the bytes: the server closed, broke off, or says nothing more.

        An answer is complete only if a finish reason came; nothing else tells a cut stream from a whole one.
        """
        parts: list[Part] = []
        if self.done:
            return parts
        try:
            for name, body in self._events.finish():
                self._take(name, body, parts)
        except ModelError as error:
            self._fail(error)
        except ValueError:
            pass  # the cut went through an event
        if not self.done:
            self._end(parts)
        return parts

    def _take(self, name: str, body: str, parts: list[Part]) -> None:
        body = body.strip()
        if name == "error":
            with suppress(ValueError):
                self.label = error_label(_parse(body))
            raise _reported()
        if body == "[DONE]":
            self._end(parts)
        elif body:  # empty ones keep connections alive
            self._read(_parse(body), parts)

    def _read(self, chunk: dict[str, Any], parts: list[Part]) -> None:
        if chunk.get("error") or chunk.get("object") == "error":
            self.label = error_label(chunk)
            raise _reported()
        if usage := _reported_usage(chunk):
            self._usage = _usage(usage) or self._usage
        choice = _first(chunk.get("choices"))
        sources = self._citations.of(chunk, choice)
        if choice is None:
            parts += sources
            return
        thought = text = ""
        calls: object = None
        delta = choice.get("delta")
        if isinstance(delta, dict):
            thought = text_in(delta.get("reasoning_content")) or text_in(delta.get("reasoning"))
            content = delta.get("content")
            if isinstance(content, list):
                thought, text = _thoughts(content), _joined(content)
            else:
                text = text_in(content)
            refusal = "" if text else text_in(delta.get("refusal"))  # OpenAI's: said instead of an answer
            if thought:
                parts.append(ReasoningDelta(thought))
            if text or refusal:
                parts.append(TextDelta(text or refusal))
            calls = delta.get("tool_calls")
        parts += sources
        if calls:
            self._calls.take(calls, parts)
        if reason := text_in(choice.get("finish_reason")):
            self._reason = reason[:MAX_REASON_LENGTH]
        self._text_only = bool(text) and not (thought or calls or reason or usage)

    def _end(self, parts: list[Part]) -> None:
        self.done = True
        if self._reason is None:
            message = "The model's answer broke off before it was complete."
            self.failure = ModelError("upstream_incomplete", message, retryable=True, transient=True, taken=True)
        else:
            parts.append(Finished(self._reason, self._usage))

    def _fail(self, error: ModelError) -> None:
        self.done = True
        self.failure = error


class _Calls:
    """The tool calls that an answer is writing.

    A name with a new id begins one, whatever its index: Ollama and some of vLLM's parsers give each call the index 0,
    Gemini's come without one, and Vertex changes it midway. What has no known id belongs to the call of its index or,
    without an index, to the last one: some servers make up a new id for every fragment.
    """

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)
        self._begun = 0
        self._open: dict[int | str, str] = {}
        self._last: str | None = None

    def take(self, fragments: object, parts: list[Part]) -> None:
        for fragment in fragments if isinstance(fragments, list) else ():
            if isinstance(fragment, dict):
                self._take(fragment, parts)

    def _take(self, fragment: dict[str, Any], parts: list[Part]) -> None:
        function = fragment.get("function")
        if not isinstance(function, dict):
            return
        name, given, index = text_in(function.get("name")), text_in(fragment.get("id")), fragment.get("index")
        call_id = self._known(given, name, index)
        if call_id is None and name and self._begun < MAX_CALLS:  # nobody could call what has no name
            self._begun += 1
            call_id = self._id(given)
            if given:
                self._open[given] = call_id
            if isinstance(index, int):
                self._open[index] = call_id
            parts.append(ToolStarted(call_id, name[:MAX_NAME_LENGTH]))
        self._last = call_id
        if call_id is not None and (arguments := _arguments(function.get("arguments"))):
            parts.append(ToolDelta(call_id, arguments))

    def _known(self, given: str, name: str, index: object) -> str | None:
        """The call that a fragment goes on with, if it begins none."""
        if given in self._open:
            return self._open[given]
        if name and given:
            return None
        if isinstance(index, int):
            return self._open.get(index)
        return None if name else self._last

    def _id(self, given: str) -> str:
        """The server's id, which goes back to it with the result, if it can be one; else nine letters and digits,
        which is what the strictest of them takes."""
        while not _CALL_ID.fullmatch(given) or given in self._taken:
            given = "".join([secrets.choice(_CALL_LETTERS) for _ in range(9)])
        self._taken.add(given)
        return given


def _arguments(value: object) -> str:
    """A fragment of JSON; some servers send the object itself, and whole."""
    return json.dumps(value) if isinstance(value, dict) else text_in(value)


class _Mould:
    """The bytes around the text of an event: those of a stream differ in their text alone, most of the time.

    An event that is cast in the same mould, and whose text has nothing escaped, needs no JSON parser: it is what was
    parsed before, with another text.
    """

    def __init__(self, before: bytes, behind: bytes) -> None:
        self._before = before
        self._behind = behind

    @classmethod
    def of(cls, data: bytes, parts: list[Part]) -> "_Mould | None":
        """The mould of a read that is one event and gave one delta of text; None if the text's place is not certain."""
        one = len(parts) == 1 and data.startswith(b"data:") and data.endswith(b"\n\n") and data.count(b"\n") == 2
        if not one or data.count(b'"content"') != 1 or b"\\" in data or b"\r" in data:
            return None
        text = _CONTENT.search(data)
        return cls(data[: text.start(1)], data[text.end(1) :]) if text is not None else None

    def texts_of(self, data: bytes) -> list[str] | None:
        """The texts, if ``data`` is several events of this mould, because it is read late."""
        if not data.endswith(self._behind):
            return None
        texts = [self.text_of(event + b"\n\n") for event in data[:-2].split(b"\n\n")]
        return None if None in texts else cast("list[str]", texts)

    def text_of(self, data: bytes) -> str | None:
        """The text, if ``data`` is one event of this mould."""
        if not (data.startswith(self._before) and data.endswith(self._behind)):
            return None
        text = data[len(self._before) : -len(self._behind)]
        size = len(self._before) + len(text) + len(self._behind)
        if size != len(data) or size > MAX_EVENT_BYTES or _ESCAPED.search(text):
            return None
        try:
            return text.decode()
        except UnicodeDecodeError:
            return None


def error_label(body: object) -> str:
    """What the upstream calls its error, such as ``insufficient_quota``; empty if it has no name for it.

    Fit for a log: code and type only, and only if they are words or short numbers. Its messages quote prompts and
    keys.
    """
    if isinstance(body, list) and body:
        body = body[0]  # Gemini's
    error = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return ""
    names = [str(error[key]) for key in ("code", "type", "status") if isinstance(error.get(key), str | int)]
    return "/".join([name for name in names if _LABEL.fullmatch(name)])


def _parse(body: str) -> dict[str, Any]:
    try:
        chunk = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(chunk, dict):
        raise ValueError("not an object")
    return chunk


def _first(choices: object) -> dict[str, Any] | None:
    """The choice of index 0, which may be missing; others are answers that nobody asked for."""
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index") in (0, None):
                return choice
    return None


def _reported_usage(chunk: dict[str, Any]) -> object:
    """What the chunk says of tokens: Groq has an envelope of its own for it, in all that is streamed."""
    if usage := chunk.get("usage"):
        return usage
    groq = chunk.get("x_groq")
    return groq.get("usage") if isinstance(groq, dict) else None


def _thoughts(pieces: list[object]) -> str:
    """What Mistral's reasoning models think: https://docs.mistral.ai/capabilities/reasoning/"""
    return "".join([_joined(piece.get("thinking")) for piece in pieces if isinstance(piece, dict)])


def _joined(pieces: object) -> str:
    found = pieces if isinstance(pieces, list) else []
    return "".join([text_in(piece.get("text")) for piece in found if isinstance(piece, dict)])


def _usage(value: object) -> Usage | None:
    """The parts of a whole count only if they can be parts of it; else the whole alone is believed."""
    if not isinstance(value, dict):
        return None
    asked, answered = value.get("prompt_tokens"), value.get("completion_tokens")
    if not (_is_count(asked) and _is_count(answered)):
        return None
    thought = _part(value.get("completion_tokens_details"), "reasoning_tokens")
    beside = _part(value, "total_tokens") - asked - answered
    if beside > 0 and thought in (0, beside):
        answered, thought = answered + beside, beside  # xAI and Gemini bill the reasoning too; Gemini only in the total
    cached = _part(value.get("prompt_tokens_details"), "cached_tokens") or _part(value, "prompt_cache_hit_tokens")
    cached = cached or _part(value, "cached_tokens")  # Together's
    return Usage(
        asked,
        answered,
        cached_tokens=cached if cached <= asked else 0,
        reasoning_tokens=thought if thought <= answered else 0,
    )


def _part(details: object, name: str) -> int:
    count = details.get(name) if isinstance(details, dict) else None
    return count if _is_count(count) else 0


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_TOKENS  # not isinstance: True is an int as well


def _reported() -> ModelError:
    return ModelError("upstream_error", "The model reported an error.", retryable=True)
