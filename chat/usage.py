"""What runs use: an estimate where nobody counted, what it costs, and the question for sums of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from chat.events import Usage

BYTES_PER_TOKEN = 4
"""A rule of thumb: an English word is about one token, a CJK character three bytes."""

MAX_COST = 10**13
"""Nano-dollars, ten thousand dollars: no answer costs more, and a server that counts nonsense makes no sum overflow."""


def tokens_in(text: str) -> int:
    """About how many tokens a model makes of the text."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens. ``cached`` is for the part of the input that the upstream had read before."""

    input: Decimal
    output: Decimal
    cached: Decimal

    def of(self, usage: Usage) -> int:
        """What the usage costs, in nano-dollars: a token costs tens of them or more, and sums of integers are exact."""
        fresh = usage.input_tokens - usage.cached_tokens
        micro = fresh * self.input + usage.cached_tokens * self.cached + usage.output_tokens * self.output
        return min(round(micro * 1000), MAX_COST)


Prices: TypeAlias = Mapping[str, Price]
"""By the model's name."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one model has used in a run. ``cost`` is in nano-dollars, None where nobody knows the model's price."""

    model: str
    usage: Usage
    cost: int | None = None


def priced(shares: Mapping[str, Usage], prices: Prices) -> list[Share]:
    return [
        Share(model, usage, prices[model].of(usage) if model in prices else None) for model, usage in shares.items()
    ]


class UsageBy(StrEnum):
    """What usage is summed up by. Days are in UTC, and a run belongs to the day of its end."""

    SESSION = "session"
    USER = "user"
    DAY = "day"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which runs to sum up, and a page of what. ``first`` and ``last`` are days that are counted themselves.

    ``after`` is the key of the sum that the page begins behind. Days come latest first, all else in the order of the
    keys.
    """

    by: UsageBy
    limit: int
    user_id: str | None = None
    session_id: str | None = None
    first: date | None = None
    last: date | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What some runs have used together.

    ``estimated_runs`` and ``estimated_tokens``, in and out, are the part of it that no upstream counted. ``cost`` is in
    nano-dollars, of what has a price, None if nothing has; ``unpriced_tokens``, in and out, are not in it.
    """

    key: str
    runs: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    estimated_runs: int
    estimated_tokens: int
    cost: int | None
    unpriced_tokens: int
