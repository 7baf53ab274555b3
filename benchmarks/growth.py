"""What size costs: a request to a database of a million messages beside the same one to a small one, and the file.

The small one holds hardly more than the pages that are read, so that both answer the same.
"""

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.filling import LONG, Size, fill, session_id, user_id
from benchmarks.processes import parley
from benchmarks.report import Report
from chat.commands import NewRun
from chat.commits import Append, Settlement
from chat.events import TextDelta, completed
from chat.ids import new_id
from chat.sessions import NewSession, Turn
from store.sqlite import SqliteStore

COSTLIEST = 1.3
"""What a request may cost, in times of the same request to the small database."""

LARGEST = 2.5
"""Bytes that the file may grow by for a byte of text."""

SMALL = Size(sessions=120, long=240, users=1)
LARGE = Size(sessions=50_000, long=20_000, users=100)
SHORT = Size(sessions=1_500, long=20_000, users=10)

PAGE = 50

TOKENS = 300
"""Tokens of a typical answer, of a little more than four characters each."""

QUESTION = 80
"""Characters of a typical question."""

WARM_UP = 5
"""Requests of a kind that are not counted."""


class Site:
    """A server on a database of its own, and what can be asked of it. All times are CPU seconds of the server."""

    def __init__(self, stack: ExitStack, folder: Path, size: Size) -> None:
        file = folder / "parley.db"
        self._size = size
        self._server = stack.enter_context(parley(folder, STREAM_DELAY="0"))
        self._connection = HTTPConnection("127.0.0.1", self._server.port)
        self._get("/ready")
        self.start_up = self._server.cpu()
        self._rows = stack.enter_context(closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)))
        self._numbers = count()
        user, places = user_id(0), "SELECT touched FROM sessions WHERE user_id = ? ORDER BY touched DESC"
        touched = [place for (place,) in self._rows.execute(places, (user,))]
        self._list_of_user = f"/sessions?limit={PAGE}&user_id={user}"
        self._deep_in_list = touched[len(touched) // 2]
        deep = "SELECT id FROM messages WHERE session_id = ? ORDER BY pos DESC LIMIT 1 OFFSET ?"
        (self._deep_in_long,) = self._rows.execute(deep, (LONG, size.long // 2)).fetchone()
        (self._leaf_of_long,) = self._rows.execute("SELECT leaf_id FROM sessions WHERE id = ?", (LONG,)).fetchone()

    def cost(self, request: Callable[["Site"], object], times: int) -> float:
        """Of one of that many requests."""
        before = self._server.cpu()
        for _ in range(times):
            request(self)
        return (self._server.cpu() - before) / times

    def idle(self, seconds: float) -> float:
        """Of a second without a request."""
        before = self._server.cpu()
        time.sleep(seconds)
        return (self._server.cpu() - before) / seconds

    def start_new(self) -> None:
        self._chat(new_id("ses"))

    def start_ordinary(self) -> None:
        """Another session each time, so that none grows while it is measured."""
        self._chat(session_id(next(self._numbers) * 7919 % self._size.sessions))

    def start_long(self) -> None:
        """Always behind the same answer, so that the model is sent as much each time."""
        self._chat(LONG, parent_id=self._leaf_of_long)

    def history_ordinary(self) -> None:
        self._get(f"/sessions/{session_id(next(self._numbers) * 6007 % self._size.sessions)}/messages?limit=10")

    def history_long(self) -> None:
        self._get(f"/sessions/{LONG}/messages?limit={PAGE}")

    def history_deep(self) -> None:
        self._get(f"/sessions/{LONG}/messages?limit={PAGE}&before={self._deep_in_long}")

    def list_all(self) -> None:
        self._get(f"/sessions?limit={PAGE}")

    def list_all_deep(self) -> None:
        self._get(f"/sessions?limit={PAGE}&after={self._deep_in_list}")

    def list_user(self) -> None:
        self._get(self._list_of_user)

    def list_user_deep(self) -> None:
        self._get(f"{self._list_of_user}&after={self._deep_in_list}")

    def _get(self, target: str) -> None:
        self._request("GET", target)

    def _chat(self, session: str, **more: str) -> None:
        """Start an answer of one word; its end is seen in the file, without a request."""
        run = self._request("POST", "/chat", {"message": "Hello", "session_id": session, **more})
        ended = "SELECT finished_at FROM runs WHERE id = ?"
        while self._rows.execute(ended, (run["run_id"],)).fetchone() == (None,):
            time.sleep(0.002)

    def _request(self, method: str, target: str, body: object = None) -> dict[str, object]:
        headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
        self._connection.request(method, target, None if body is None else json.dumps(body), headers)
        with self._connection.getresponse() as response:
            content: dict[str, object] = json.loads(response.read())
            if response.status >= 300:
                raise RuntimeError(content)
            return content


NEW, IN_LONG = "a chat's start in a new session, to the end of its answer of one word", "the same in the long session"

REQUESTS: dict[str, Callable[[Site], None]] = {  # chats come last: they bring their sessions to the top of the lists
    f"the first {PAGE} sessions of all": Site.list_all,
    f"{PAGE} sessions from the middle": Site.list_all_deep,
    f"the first {PAGE} sessions of a user": Site.list_user,
    f"{PAGE} sessions from their middle": Site.list_user_deep,
    "10 messages of an ordinary session": Site.history_ordinary,
    f"the last {PAGE} messages of the long session": Site.history_long,
    f"{PAGE} messages from its middle": Site.history_deep,
    NEW: Site.start_new,
    "the same in an ordinary session, of 20 messages": Site.start_ordinary,
    IN_LONG: Site.start_long,
}


def run(*, short: bool) -> Report:
    """Compare the two, and let a file grow; two minutes, or half of one and with fewer messages."""
    large, rounds, times, idle = (SHORT, 15, 4, 2.0) if short else (LARGE, 41, 8, 20.0)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        places = {Path(folder, "small"): SMALL, Path(folder, "large"): large}
        for place, size in places.items():
            place.mkdir()
            fill(place / "parley.db", size)
        sites = [Site(stack, place, size) for place, size in places.items()]
        found = _compared(sites, rounds, times)
        rows = [_row(name, costs, "µs", 1e6) for name, costs in found.items()]
        rows.append(_row("a second without a request", [site.idle(idle) for site in sites], "ms", 1e3))
        rows.append(_row("the service's start, until it is ready", [site.start_up for site in sites], "ms", 1e3))
        grown = grow(Path(folder, "growing.db"), rounds=3 if short else 6, exchanges=200 if short else 500)
    worst = max(cost / small for small, cost in found.values())
    context = found[IN_LONG][1] / found[NEW][0]
    text, file = (sum(values) for values in zip(*grown[1:], strict=True))
    rows.append(("the file, for more text", f"{text / 1e6:.2f} MB", f"{file / 1e6:.2f} MB", f"{file / text:.2f}"))
    return Report(
        "growth",
        "What size costs",
        ("", f"{SMALL.messages:,} messages", f"{large.messages:,} messages", "ratio"),
        rows,
        chart=3,
        notes=_notes(rounds, times, large, worst, context, grown, file / text),
    )


def _notes(
    rounds: int,
    times: int,
    large: Size,
    worst: float,
    context: float,
    grown: Sequence[tuple[int, int]],
    growth: float,
) -> Sequence[str]:
    each = ", ".join(f"{file / text:.2f}" for text, file in grown)
    conditions = f"""CPU time of the server, the median of {rounds} rounds of {times} requests that go to both in turn.
        The long session has {SMALL.long} and {large.long:,} messages; a chat there sends the model what its context
        has room for, in both."""
    requests = f"""Target: no request costs more than {COSTLIEST} times as much. {_reached(worst, COSTLIEST)}.
        Beside a chat in a new session of the small database, which has no history to send, one in the long session of
        the large database costs {context:.2f} times as much."""
    file = f"""Target: the file grows by at most {LARGEST} bytes for a byte of text, once the logs are folded; here with
        questions of {QUESTION} characters and answers of {TOKENS} tokens. {_reached(growth, LARGEST)}. In rounds of as
        much text each it was {each}: the first makes the room that logs need while they are kept, the others use it
        again."""
    return [" ".join(note.split()) for note in (conditions, requests, file)]


def _reached(value: float, limit: float) -> str:
    return f"{'Reached' if value <= limit else 'Missed'}: {value:.2f}"


def _compared(sites: Sequence[Site], rounds: int, times: int) -> dict[str, list[float]]:
    """Each request's costs at the sites. They take turns: what else the machine does meets all of them."""
    found: dict[str, list[float]] = {}
    for name, request in REQUESTS.items():
        for site in sites:
            site.cost(request, WARM_UP)
        costs = [[site.cost(request, times) for site in sites] for _ in range(rounds)]
        found[name] = [median(of_site) for of_site in zip(*costs, strict=True)]
    return found


def _row(name: str, costs: Sequence[float], unit: str, scale: float) -> tuple[str, ...]:
    small, large = costs
    return name, f"{small * scale:,.0f} {unit}", f"{large * scale:,.0f} {unit}", f"{large / small:.2f}"


# --- the file -------------------------------------------------------------------------------------------------


def grow(file: Path, *, rounds: int, exchanges: int) -> list[tuple[int, int]]:
    """Of each round: the bytes of text that came in, and those that the file grew by when the logs were folded."""
    return asyncio.run(_grow(file, rounds, exchanges))


async def _grow(file: Path, rounds: int, exchanges: int) -> list[tuple[int, int]]:
    random_ = random.Random(1)
    store = SqliteStore(file)
    await store.open()
    try:
        found, before = [], _size(file)
        for _ in range(rounds):
            text = 0
            for some in _groups(random_, exchanges):
                text += await _converse(store, some)
            for _ in range(2):  # the journal is pruned up to where the sweep before stood
                await store.sweep(0)
            after = _size(file)
            found.append((text, after - before))
            before = after
        return found
    finally:
        await store.close()


def _groups(random_: random.Random, exchanges: int) -> Iterator[list[NewRun]]:
    """Questions that are asked at the same time, each in another of so many sessions."""
    together = 20
    sessions = [NewSession(new_id("ses"), user_id(number)) for number in range(exchanges // 10)]
    for _ in range(exchanges // together):
        question = Turn("user", "".join(random_.choices("etaoin shrdlu", k=QUESTION)))
        yield [
            NewRun(new_id("run"), session, None, [question], "gpt-4o-mini")
            for session in random_.sample(sessions, min(together, len(sessions)))
        ]


async def _converse(store: SqliteStore, some: Sequence[NewRun]) -> int:
    """Ask, and answer all at once in many small commits; the bytes of text."""
    tokens = [TextDelta(f"{word} ") for word in ("the", "one", "which", "an") * (TOKENS // 4)]
    answer = "".join(token.text for token in tokens)
    end = completed(answer, "stop", None)
    runs = [(await store.start_run(new)).run for new in some]
    for first in range(0, TOKENS, 10):
        await store.commit([Append(run, first + 1, tokens[first : first + 10]) for run in runs])
    settlement = Settlement(end, answer, [*tokens, end])
    await store.commit([Append(run, TOKENS + 1, [end], settlement) for run in runs])
    return sum(len(new.turns[0].content) + len(answer) for new in some)


def _size(file: Path) -> int:
    """Bytes, with everything in it that was committed."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size
