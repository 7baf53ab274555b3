"""What OpenAI-compatible servers say their answers are from. Pure: no I/O, no await.

There are two ways. ``url_citation`` annotations stand in a delta, or in the whole message beside it, and say which
characters they belong to: https://platform.openai.com/docs/guides/tools-web-search. Perplexity has ``search_results``
and ``citations`` beside the choices, in every event again: https://docs.perplexity.ai/api-reference. So has xAI.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from chat.events import Source
from chat.sources import MAX_SOURCES, MAX_TEXT, address, key_of, label, span
from chat.texts import text_in

LOOKED_AT = 4 * MAX_SOURCES
"""Entries of one list that are looked at: what is behind so many that are none, or are known, is not waited for."""


class Citations:
    """Those of one answer, each once. What does not look as it should is ignored: no answer fails for its footnotes."""

    def __init__(self) -> None:
        self._known: set[tuple[object, ...]] = set()
        self._last: object = None

    def of(self, chunk: Mapping[str, Any], choice: Mapping[str, Any] | None) -> list[Source]:
        """The sources that a chunk names, and none has before. They have no ids yet."""
        beside = chunk.get("search_results"), chunk.get("citations")
        if beside == self._last:  # nearly always: nobody has any, or it is what the event before has said
            beside = None, None
        else:
            self._last = beside
        delta, message = (choice.get("delta"), choice.get("message")) if choice is not None else (None, None)
        found: list[Source] = []
        for listed in (_annotations(delta), _annotations(message), *beside):
            if isinstance(listed, list):
                for entry in listed[:LOOKED_AT]:
                    if len(self._known) < MAX_SOURCES:
                        found += self._fresh(entry)
        return found

    def _fresh(self, entry: object) -> Iterator[Source]:
        source = _source(entry)
        if source is not None and key_of(source) not in self._known:
            self._known.add(key_of(source))
            yield source


def _annotations(message: object) -> object:
    return message.get("annotations") if isinstance(message, dict) else None


def _source(entry: object) -> Source | None:
    if isinstance(entry, str):
        entry = {"url": entry}
    if not isinstance(entry, dict):
        return None
    if isinstance(cited := entry.get("url_citation"), dict):
        entry = cited
    url = address(text_in(entry.get("url")))
    if url is None:
        return None
    place = span(entry.get("start_index"), entry.get("end_index"))
    start, end = (None, None) if place is None else place
    text = text_in(entry.get("content")) or text_in(entry.get("snippet"))  # OpenRouter's, Perplexity's
    return Source("", url, label(text_in(entry.get("title"))), text=label(text, MAX_TEXT), start=start, end=end)
