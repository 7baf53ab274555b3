"""What the runs have used: SQL beside the row mapping. Every function works inside a given transaction."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from chat.errors import ChatError
from chat.runs import Run
from chat.sessions import Page
from chat.usage import Share, UsageBy, UsageQuery, UsageSum
from store.rows import Rows

DAY_MS = 86_400_000

_EPOCH = date(1970, 1, 1)

_KEYS: Mapping[UsageBy, str] = {
    UsageBy.SESSION: "session_id",
    UsageBy.USER: "user_id",
    UsageBy.DAY: "day",
    UsageBy.MODEL: "model",
}

_SUMS = """
    SELECT {key}, count(DISTINCT run_id), CAST(sum(input_tokens) AS BIGINT), CAST(sum(output_tokens) AS BIGINT),
           CAST(sum(cached_tokens) AS BIGINT), CAST(sum(reasoning_tokens) AS BIGINT),
           count(DISTINCT run_id) FILTER (WHERE estimated = 1),
           CAST(sum(estimated * (input_tokens + output_tokens)) AS BIGINT), CAST(sum(cost) AS BIGINT),
           CAST(sum(CASE WHEN cost IS NULL THEN input_tokens + output_tokens ELSE 0 END) AS BIGINT)
    FROM usage WHERE {which} GROUP BY {key} ORDER BY {key} {order} LIMIT :limit
"""


async def insert(db: Rows, shares: Sequence[tuple[Run, Share]], ended_at: int) -> None:
    await db.each(
        "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                run.id,
                run.session_id,
                run.user_id,
                share.model,
                ended_at // DAY_MS,
                share.usage.input_tokens,
                share.usage.output_tokens,
                share.usage.cached_tokens,
                share.usage.reasoning_tokens,
                int(share.usage.source == "estimated"),
                share.cost,
            )
            for run, share in shares
        ],
    )


async def sums(db: Rows, query: UsageQuery) -> Page[UsageSum]:
    key, by_day = _KEYS[query.by], query.by is UsageBy.DAY
    conditions = {
        "session_id = :session_id": query.session_id,
        "user_id = :user_id": query.user_id,
        "day >= :first": _day(query.first),
        "day <= :last": _day(query.last),
        f"{key} {'<' if by_day else '>'} :after": _after(query),
    }
    given = {condition: value for condition, value in conditions.items() if value is not None}
    found = await db.rows(
        _SUMS.format(key=key, which=" AND ".join(given) or "TRUE", order="DESC" if by_day else "ASC"),
        {condition.rpartition(":")[2]: value for condition, value in given.items()} | {"limit": query.limit + 1},
    )
    items = [UsageSum(_shown(found_key) if by_day else found_key, *numbers) for found_key, *numbers in found]
    page = items[: query.limit]
    return Page(page, page[-1].key if len(items) > query.limit else None)


def _after(query: UsageQuery) -> int | str | None:
    if query.after is None or query.by is not UsageBy.DAY:
        return query.after
    try:
        return _day(date.fromisoformat(query.after))
    except ValueError:
        raise ChatError("invalid_request", "after is not a cursor of this list.") from None


def _day(day: date | None) -> int | None:
    return None if day is None else (day - _EPOCH).days


def _shown(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()
