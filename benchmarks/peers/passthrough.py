"""The limit in Python: aiohttp hands on the upstream's bytes unseen. ``UPSTREAM`` is its URL, ``PORT`` ours."""

import asyncio
import os
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, TCPConnector, web

session = web.AppKey("session", ClientSession)


async def proxy(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    async with request.app[session].post(
        os.environ["UPSTREAM"] + request.path, data=body, headers={"Content-Type": "application/json"}
    ) as upstream:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for data in upstream.content.iter_any():
            await response.write(data)
        await response.write_eof()
    return response


async def sessions(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(connector=TCPConnector(limit=0)) as app[session]:
        yield


async def serve() -> None:
    app = web.Application()
    app.cleanup_ctx.append(sessions)
    app.router.add_post("/v1/chat/completions", proxy)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
