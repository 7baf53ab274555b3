"""A database that seems to have been used for long, written in seconds: the rows that the store itself would leave."""

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from chat.events import Usage, completed, dump
from store.sqlite import SqliteStore

T = TypeVar("T")

SESSION_MESSAGES = 20
"""Messages of an ordinary session."""

LONG = "ses_long"
"""The session that is not ordinary."""

_OPEN = 200
"""Ordinary sessions that go on at the same time, so that their messages lie between one another."""

_WRITING = 20
"""Answers that are written at the same time: they end up behind messages that came after their question."""

_KEPT = 0.02
"""The part of the runs that ended so lately that their logs are still there."""

_PAUSE_MS = 2_000
"""Between two questions, whoever asks."""

_PROSE = """the a of to and in is it that for you as with on be this can are not or by from at which will one have when
an if each more use time data value function example would because between important however first second through system
different number result while should about into without understand naïve façade “quoted” — 東京"""


@dataclass(frozen=True, slots=True)
class Size:
    """How many ordinary sessions, how many messages in the long one, and how many users."""

    sessions: int
    long: int
    users: int

    @property
    def messages(self) -> int:
        return self.sessions * SESSION_MESSAGES + self.long


def session_id(number: int | None) -> str:
    return LONG if number is None else f"ses_{number:026}"


def user_id(number: int) -> str:
    return f"user-{number:05}@example.org"


def fill(file: Path, size: Size) -> None:
    """Make the database. Everything is over and settled; the same size always gives the same rows but for the time."""
    asyncio.run(_create(file))
    rows = _Rows(size)
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1000000"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("BEGIN")
        db.executemany(
            """INSERT INTO messages (id, session_id, parent_id, role, content, status, run_id, created_at)
               VALUES (?, ?, ?, ?, ?, 'completed', ?, ?)""",
            rows.messages(),
        )
        db.executemany(
            """INSERT INTO runs (id, session_id, message_id, answer_id, status, model, owner, epoch, journal_from,
                                 last_seq, terminal, created_at, finished_at, folded)
               VALUES (?, ?, ?, ?, 'completed', 'gpt-4o-mini', 1, 1, 1, ?, ?, ?, ?, ?)""",
            rows.runs(),
        )
        db.executemany("INSERT INTO log_pages VALUES (?, ?, ?, ?)", rows.log_pages())
        db.executemany(
            """INSERT INTO sessions (id, user_id, metadata, leaf_id, message_count, created_at, updated_at, touched)
               VALUES (?, ?, '{}', ?, ?, ?, ?, ?)""",
            rows.sessions(),
        )
        db.execute("UPDATE messages_indexed SET up_to = (SELECT max(pos) FROM messages)")
        db.execute("INSERT INTO messages_index (messages_index) VALUES ('rebuild')")
        db.execute("COMMIT")


async def _create(file: Path) -> None:
    store = SqliteStore(file)
    await store.open()
    await store.close()


class _Rows:
    def __init__(self, size: Size) -> None:
        self._random = random.Random(1)
        self._size = size
        self._order = self._exchanges()
        self._kept_from = len(self._order) - int(len(self._order) * _KEPT)
        self._began = time.time_ns() // 1_000_000 - len(self._order) * _PAUSE_MS
        self._questions = [self._text(80) for _ in range(200)]
        self._answers = [self._text(1_000) for _ in range(1_000)]
        self._ends = [dump(completed(text, "stop", Usage(2_000, len(text) // 4))) for text in self._answers]

    def messages(self) -> Iterator[Sequence[object]]:
        leaf: dict[int | None, str] = {}
        writing: dict[int | None, Sequence[object]] = {}
        for number, session in enumerate(self._order):
            if session in writing:
                yield writing.pop(session)
            elif len(writing) == _WRITING:
                yield writing.pop(next(iter(writing)))
            message, answer, owner, asked = _question(number), _answer(number), session_id(session), self._at(number)
            yield message, owner, leaf.get(session), "user", _pick(self._questions, number), None, asked
            text = _pick(self._answers, number)
            writing[session] = answer, owner, message, "assistant", text, _run(number), asked + _PAUSE_MS
            leaf[session] = answer
        yield from writing.values()

    def runs(self) -> Iterator[Sequence[object]]:
        for number, session in enumerate(self._order):
            begun, events = self._at(number), len(_pick(self._answers, number).split()) + 1
            end = json.dumps(_pick(self._ends, number))
            ids = _run(number), session_id(session), _question(number), _answer(number)
            yield *ids, events, end, begun, begun + _PAUSE_MS, number < self._kept_from

    def log_pages(self) -> Iterator[Sequence[object]]:
        for number in range(self._kept_from, len(self._order)):
            events = [*_pick(self._answers, number).split(), _pick(self._ends, number)]
            yield _run(number), 1, len(events), json.dumps(events, ensure_ascii=False)

    def sessions(self) -> Iterator[Sequence[object]]:
        first: dict[int | None, int] = {}
        last: dict[int | None, int] = {}
        for number, session in enumerate(self._order):
            first.setdefault(session, number)
            last[session] = number
        for session, number in first.items():
            messages, at = SESSION_MESSAGES if session is not None else self._size.long, last[session]
            owner = user_id((session or 0) % self._size.users)
            times = self._at(number), self._at(at) + _PAUSE_MS
            yield session_id(session), owner, _answer(at), messages, *times, 2 * at + 2

    def _exchanges(self) -> list[int | None]:
        """Whose turn it is to ask, one after the other: an ordinary session's, or None for the long one."""
        size, turns = self._size, SESSION_MESSAGES // 2
        asked = [(turn + self._random.random() * _OPEN * turns, turn // turns) for turn in range(size.sessions * turns)]
        pause = size.sessions * turns / (size.long // 2)
        return [session for _, session in sorted([*asked, *((turn * pause, None) for turn in range(size.long // 2))])]

    def _text(self, usual: float) -> str:
        """20 to 2,000 characters."""
        length = min(2_000, max(20, int(self._random.lognormvariate(0, 0.6) * usual)))
        return " ".join(self._random.choices(_PROSE.split(), k=length))[:length]

    def _at(self, number: int) -> int:
        return self._began + number * _PAUSE_MS


def _pick(values: Sequence[T], number: int) -> T:
    return values[number * 7919 % len(values)]


def _question(number: int) -> str:
    return f"msg_{2 * number:026}"


def _answer(number: int) -> str:
    return f"msg_{2 * number + 1:026}"


def _run(number: int) -> str:
    return f"run_{number:026}"
