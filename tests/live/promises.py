"""Every promise, held against what clients were told and what is kept, whatever happened in between."""

import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chat.usage import tokens_in
from tests.live.checks import check_run, member
from tests.live.history import History
from tests.live.service import Frame, Service
from tests.live.witness import Account

Look = Callable[[str], Awaitable[list[tuple[Any, ...]]]]
"""A query of the database, past the service."""

TAKEOVERS = 8
"""How often a run may die with its process before it is given up."""


@dataclass(frozen=True, slots=True)
class RunRow:
    id: str
    session_id: str
    message_id: str
    answer_id: str
    status: str
    epoch: int


@dataclass(frozen=True, slots=True)
class MessageRow:
    id: str
    session_id: str
    parent_id: str | None
    role: str
    content: str
    status: str
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What the database has, in its order."""

    runs: Mapping[str, RunRow]
    messages: Mapping[str, MessageRow]
    claims: Mapping[str, str]
    used: Mapping[str, int]

    @classmethod
    async def read(cls, look: Look) -> "Kept":
        runs = await look("SELECT id, session_id, message_id, answer_id, status, epoch FROM runs ORDER BY pos")
        messages = await look(
            "SELECT id, session_id, parent_id, role, content, status, run_id FROM messages ORDER BY pos"
        )
        used = await look("SELECT run_id, output_tokens FROM usage")
        assert len(used) == len({run_id for run_id, _ in used}), "a run was charged twice"
        return cls(
            {row[0]: RunRow(*row) for row in runs},
            {row[0]: MessageRow(*row) for row in messages},
            dict(await look("SELECT key, run_id FROM claims")),
            dict(used),
        )


def check_acknowledged(kept: Kept, accounts: Sequence[Account]) -> None:
    """Each acknowledged request is one run, each message there once, and nothing else is there."""
    told = {account.key: account.run_id for account in accounts if not account.refused}
    assert all(told.values())
    refused = {account.key for account in accounts if account.refused and not account.doubtful}
    doubtful = {account.key for account in accounts if account.refused and account.doubtful}
    assert not refused & kept.claims.keys(), f"what was refused has begun a run: {refused & kept.claims.keys()}"
    claimed = {key: run_id for key, run_id in kept.claims.items() if key not in doubtful}
    assert claimed == told, f"{claimed.items() ^ told.items()}"
    assert Counter(kept.claims.values()) == Counter(kept.runs.keys()), "a request has begun two runs, or none"
    said = Counter(message.content for message in kept.messages.values() if message.role == "user")
    meant = Counter(account.body["message"] for account in accounts if account.run_id and "message" in account.body)
    perhaps = {account.body.get("message") for account in accounts if account.key in doubtful}
    assert {text: count for text, count in said.items() if text not in perhaps} == meant


def check_tree(kept: Kept, accounts: Sequence[Account]) -> None:
    """Each message follows the answer before it, and each answer its message, in the order of the acknowledgements."""
    by_run = {account.run_id: account for account in accounts}
    sessions: defaultdict[str, list[RunRow]] = defaultdict(list)
    for run in kept.runs.values():
        sessions[run.session_id].append(run)
    assert len(kept.messages) == len(kept.runs) + len({run.message_id for run in kept.runs.values()})
    for runs in sessions.values():
        leaf: str | None = None
        answered_messages: set[str] = set()
        for run in runs:
            message, answer = kept.messages[run.message_id], kept.messages[run.answer_id]
            assert (message.role, message.session_id) == ("user", run.session_id)
            if run.message_id not in answered_messages:
                assert message.parent_id == leaf, f"{message} behind {leaf}"
            answered_messages.add(run.message_id)
            expected = MessageRow(
                run.answer_id, run.session_id, run.message_id, "assistant", answer.content, run.status, run.id
            )
            assert answer == expected
            leaf = run.answer_id
        acknowledged = float("inf")
        for account in [by_run[run.id] for run in reversed(runs) if run.id in by_run]:
            assert account.first_asked < acknowledged, f"{account.key} is before what was acknowledged before it"
            acknowledged = min(acknowledged, account.answered)


def check_journal(
    kept: Kept, accounts: Sequence[Account], entries: Iterable[tuple[int, str, int, str]], history: History
) -> None:
    """What was in the journal while it went on: each event once, and a session's answers one behind the other."""
    keys = {account.run_id: account.key for account in accounts}
    place = {run_id: number for number, run_id in enumerate(kept.runs)}
    seen: dict[str, int] = {}
    speaking: dict[str, str] = {}
    for _, run_id, seq, name in entries:
        with history.concerning(keys.get(run_id, "")):
            assert seq > seen.get(run_id, 0), f"{run_id} has its event {seq} twice in the journal"
            seen[run_id] = seq
            if name == "text.delta":
                before = speaking.setdefault(kept.runs[run_id].session_id, run_id)
                assert place[run_id] >= place[before], f"{run_id} speaks when {before} has begun"
                speaking[kept.runs[run_id].session_id] = run_id


async def check_accounts(
    kept: Kept, accounts: Sequence[Account], services: Sequence[Service], recovery: str, history: History
) -> None:
    """What was shown is what is stored, by whichever replica it is told, and it ended as it was said to."""
    draw = random.Random(0)
    interrupts = [account.run_id for account in accounts if account.body["on_busy"] == "interrupt"]
    interrupting = {kept.runs[run_id].session_id for run_id in interrupts}
    for account in accounts:
        if account.refused:
            continue
        with history.concerning(account.key):
            service, run = draw.choice(services), kept.runs[account.run_id]
            assert (await check_run(service, run.id))["status"] == run.status
            _, *log = await service.follow(run.id, format=account.body["format"])
            assert account.seen == log, f"what was seen is not what is stored:\n{account.seen}\n{log}"
            _check_end(kept, account, run, stopped=run.session_id in interrupting, recovery=recovery)
            _check_usage(kept, run, await service.follow(run.id, format="events"))


def _check_end(kept: Kept, account: Account, run: RunRow, *, stopped: bool, recovery: str) -> None:
    answer, message = kept.messages[run.answer_id].content, kept.messages[run.message_id].content
    assert message.startswith(answer), f"{answer!r} is not what {message!r} is answered with"
    assert not account.stopped or run.status == "cancelled", "a stop was acknowledged, and undone"
    match run.status:
        case "completed":
            assert answer == message
        case "cancelled":
            assert account.stop_asked or stopped
        case "interrupted":
            assert recovery == "interrupt" or run.epoch > TAKEOVERS
        case "failed":  # the database was away for longer than events wait for it
            assert account.seen[-1].data is not None
            assert "store_unavailable" in account.seen[-1].data
        case _:
            raise AssertionError(f"{run} has not ended")


def _check_usage(kept: Kept, run: RunRow, log: Sequence[Frame]) -> None:
    """The echo model's tokens are those of its words, of each owner's part by itself."""
    parts = [""]
    for frame in log:
        if frame.event == "seam":
            parts.append("")
        elif frame.event == "text.delta":
            parts[-1] += str(member(frame, "text"))
    assert kept.used.get(run.id, 0) == sum(map(tokens_in, parts)), f"{parts} were not charged once"
