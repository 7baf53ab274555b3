"""The model, in a process of its own: streams chat completions at a steady pace, as cheaply as Python can.

``python -m benchmarks.upstream --rate 50 --tokens 300`` prints its port. Each answer begins at a random moment of the
pace, so that no two streams beat together. Every token says when it was made (:mod:`benchmarks.tokens`). A request that
has "say 5 tokens" in it gets five.
"""

import argparse
import asyncio
import random
import re
from typing import cast

import uvloop

from benchmarks.tokens import token

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
_WANTED = re.compile(rb"say ([0-9]+) tokens", re.IGNORECASE)


def event(delta: str, reason: str = "null", usage: str = "null", choices: bool = True) -> bytes:
    """One HTTP chunk with one event, of the size and shape that OpenAI sends."""
    choice = f'[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}]' if choices else "[]"
    data = (
        'data: {"id":"chatcmpl-CzmtJqGIJDrcB6s9oQyVkXWRz8ChP","object":"chat.completion.chunk","created":1790000000,'
        '"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_1590f93f9d",'
        f'"choices":{choice},"usage":{usage}}}\n\n'
    ).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


FIRST = event('{"role":"assistant","content":"","refusal":null}')


def last(tokens: int) -> bytes:
    usage = f'{{"prompt_tokens":10,"completion_tokens":{tokens},"total_tokens":{tokens + 10}}}'
    return event("{}", '"stop"') + event("{}", usage=usage, choices=False) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Answers(asyncio.Protocol):
    """One connection; its requests are answered one after the other."""

    def __init__(self, rate: float, tokens: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._pause = 1 / rate
        self._tokens = tokens
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or length is None or len(body) < int(length[1]):
            return
        self._received = body[int(length[1]) :]
        wanted = _WANTED.search(body)
        self._transport.write(HEAD + FIRST)
        self._due = self._loop.time() + random.random() * self._pause
        self._count = self._left = int(wanted[1]) if wanted else self._tokens
        self._loop.call_at(self._due, self._say)

    def _say(self) -> None:
        if self._transport.is_closing():
            return
        if self._left == 0:
            self._transport.write(last(self._count))
            return
        self._left -= 1
        self._transport.write(event(f'{{"content":"{token()}"}}'))
        self._due += self._pause
        self._loop.call_at(self._due, self._say)


async def serve(rate: float, tokens: int, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answers(rate, tokens), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=50, help="tokens a second of one stream")
    parser.add_argument("--tokens", type=int, default=300, help="tokens of one answer")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.rate, arguments.tokens, arguments.port))


if __name__ == "__main__":
    main()
