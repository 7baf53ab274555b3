"""What was used: tokens and cost, in sums."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.usage import UsageQuery
from handlers.bodies import UsageParameters, query_of
from handlers.context import engine_of
from handlers.views import UsageSumsView, usage_sum_view


async def sum_usage(request: Request) -> Response:
    asked = query_of(request, UsageParameters)
    query = UsageQuery(
        by=asked.by,
        limit=asked.limit,
        user_id=asked.user_id,
        session_id=asked.session_id,
        first=asked.from_,
        last=asked.to,
        after=asked.after,
    )
    page = await engine_of(request).store.usage(query)
    view: UsageSumsView = {"by": asked.by, "usage": [usage_sum_view(item) for item in page.items], "next": page.next}
    return JSONResponse(view)
