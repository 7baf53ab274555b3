"""How many runs a client has going, and how many tokens it has used today."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from chat.engine import Engine
from chat.errors import ChatError
from chat.usage import UsageBy, UsageQuery
from handlers.clients import Client

MOST_CLIENTS = 10_000
"""That are remembered. One more, and the one that was away for the longest begins anew."""


@dataclass(slots=True)
class _Account:
    """``runs`` were going when they were last looked at. ``tokens`` were used on ``day``, and the store does not know
    of them: by an address, or by a user who was deleted since."""

    runs: set[str] = field(default_factory=set)
    tokens: int = 0
    day: datetime | None = None


class Budgets:
    """``tokens``: that a client may use on a day, in UTC; 0 is any number.

    A known user's are what the store has summed up, of all processes. Those of an address are counted here, from the
    runs that it has started here: no address is stored.
    """

    def __init__(self, tokens: int, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def add(self, client: Client, run_id: str) -> None:
        """The client has started a run."""
        self._account(client).runs.add(run_id)

    async def settle(self, client: Client, engine: Engine, most: int) -> int:
        """How many runs the client has going; those are looked at if they seem to be more than ``most``.

        A run that waits for somebody's yes is not one of them: that may take days. It does not matter which process
        ends a run, so that nobody has to tell.
        """
        account = self._account(client)
        if len(account.runs) <= most and (client.user is not None or not self._tokens):
            return len(account.runs)
        waiting = 0
        for run_id in list(account.runs):
            run = await engine.store.run(run_id)
            if run is not None and run.status.active:
                waiting += bool(run.waiting)
            elif run_id in account.runs:
                account.runs.discard(run_id)
                usage = run.terminal.usage if run is not None and run.terminal is not None else None
                if usage is not None and client.user is None:
                    self._use(account, usage.input_tokens + usage.output_tokens)
        return len(account.runs) - waiting

    async def check(self, client: Client, engine: Engine) -> None:
        """Raises ChatError: ``budget_spent``; ``store_unavailable``."""
        if not self._tokens:
            return
        today = self._today()
        used = await self.used(client, engine)
        if used >= self._tokens:
            tomorrow = today + timedelta(days=1)
            message = "Your tokens for today are used up; there are new ones tomorrow, in UTC."
            details = {"daily_tokens": self._tokens, "used_tokens": used, "retryable": False}
            raise ChatError("budget_spent", message, details=details, retry_after=tomorrow.timestamp() - self._clock())

    async def used(self, client: Client, engine: Engine) -> int:
        """Tokens of today."""
        today, account = self._today(), self._account(client)
        used = account.tokens if account.day == today else 0
        if client.user is not None:
            query = UsageQuery(UsageBy.DAY, 1, user_id=client.user, first=today.date(), last=today.date())
            used += sum([day.input_tokens + day.output_tokens for day in (await engine.store.usage(query)).items])
        return used

    def keep(self, client: Client, used: int) -> None:
        """Remember here what the client has used today: the store has forgotten the user."""
        account = self._account(client)
        account.tokens, account.day = used, self._today()

    def _use(self, account: _Account, tokens: int) -> None:
        today = self._today()
        account.tokens = tokens + (account.tokens if account.day == today else 0)
        account.day = today

    def _today(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    def _account(self, client: Client) -> _Account:
        account = self._accounts.pop(client.name, None) or _Account()
        self._accounts[client.name] = account  # behind all others
        if len(self._accounts) > MOST_CLIENTS:
            del self._accounts[next(iter(self._accounts))]
        return account
