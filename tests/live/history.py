"""What clients did and were told, in the words of Jepsen: invoke, and then ok, fail, or info if nobody knows."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tests.live.service import Frame

Kind = Literal["invoke", "ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Entry:
    """``at`` is in seconds since the beginning; ``key`` is the request's, under which its run is found."""

    at: float
    kind: Kind
    what: str
    key: str = ""
    run_id: str = ""

    def __str__(self) -> str:
        return f"{self.at:9.3f} {self.kind:6} {self.key} {self.run_id} {self.what}"


class History:
    """Of all clients and faults together, and every frame that was shown to anybody."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.shown: dict[tuple[str, str, int], Frame] = {}
        self._began = time.monotonic()

    def tell(self, kind: Kind, what: str, key: str = "", run_id: str = "") -> None:
        self.entries.append(Entry(time.monotonic() - self._began, kind, what, key, run_id))

    def show(self, run_id: str, style: str, frame: Frame) -> None:
        """A frame with an id: whoever sees that id again has to see the same."""
        before = self.shown.setdefault((run_id, style, frame.seq), frame)
        assert before == frame, f"two contents under one id: {before} and {frame}"

    def of(self, key: str) -> str:
        """All that concerns the request, and the faults meanwhile, a line each."""
        lines = [entry for entry in self.entries if entry.key == key]
        if not lines:
            return f"nobody has asked {key}"
        first, last = lines[0].at, lines[-1].at
        lines += [entry for entry in self.entries if not entry.key and first - 2 <= entry.at <= last]
        return "\n".join([f"the history of {key}:", *map(str, sorted(lines, key=lambda entry: entry.at))])

    @contextmanager
    def concerning(self, key: str) -> Iterator[None]:
        """What fails inside tells the request's history."""
        try:
            yield
        except AssertionError as error:
            error.add_note(self.of(key))
            raise
