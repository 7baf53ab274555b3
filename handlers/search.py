"""Search over the messages."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.search import Search, words_of
from handlers.bodies import SearchQuery, query_of
from handlers.context import engine_of
from handlers.listings import SearchView, hit_view


async def search(request: Request) -> Response:
    query = query_of(request, SearchQuery)
    wanted = Search(words_of(query.q), query.user_id, query.session_id, query.limit, query.after)
    page = await engine_of(request).store.search(wanted)
    view: SearchView = {"results": [hit_view(hit) for hit in page.items], "next": page.next}
    return JSONResponse(view)
