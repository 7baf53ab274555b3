"""What tools have written down."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from handlers.bodies import RecordsQuery, query_of
from handlers.context import engine_of
from handlers.listings import RecordsView, record_view


async def list_records(request: Request) -> JSONResponse:
    query = query_of(request, RecordsQuery)
    page = await engine_of(request).store.records(query.kind, query.session_id, query.user_id, query.limit, query.after)
    view: RecordsView = {"records": [record_view(record) for record in page.items], "next": page.next}
    return JSONResponse(view)
