"""Clients and networks that misbehave."""

import asyncio
import socket
import struct

import httpx

from tests.listener import Listener
from tests.live.service import PATIENCE, Service

AT_ONCE = struct.pack("ii", 1, 0)  # linger for no time at all: the kernel answers with RST, not FIN


def reset_on_close(response: httpx.Response) -> None:
    """Let the connection of an open stream end with RST and not with FIN."""
    connection = response.extensions["network_stream"].get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)


def stalled(service: Service, path: str) -> socket.socket:
    """A connection that has asked for a stream and does not read it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", service.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: parley\r\nConnection: close\r\n\r\n".encode())
    connection.settimeout(0)
    return connection


async def glimpse(service: Service, path: str, last_event_id: str, *, reset: bool) -> str:
    """Resume a stream, wait for its first record and leave; the record."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: parley\r\nLast-Event-ID: {last_event_id}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"\r\n")
            return (await reader.readuntil(b"\n\n")).decode().removesuffix("\n\n")
    finally:
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        writer.close()


async def drained(connection: socket.socket) -> bytes:
    """All that arrives on the connection until its end; ConnectionResetError if that is a hard one."""
    loop, received = asyncio.get_running_loop(), bytearray()
    while data := await loop.sock_recv(connection, 65_536):
        received += data
    return bytes(received)


class Proxy(Listener):
    """A TCP proxy that cuts its first connections, each after so many SSE records of its own, and leaves the rest.

    ``torn`` ones bring the next record as well, all but its end.
    """

    def __init__(self, service: Service, *cuts: int, reset: bool = False, torn: bool = False) -> None:
        super().__init__()
        self.connections = 0
        """On which something was asked."""
        self._port = service.port
        self._cuts = cuts
        self._reset = reset
        self._torn = torn

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(65_536)
        if not asked:  # Node connects once more when it has left a stream, and then says nothing
            writer.close()
            return
        cut = self._cuts[self.connections] if self.connections < len(self._cuts) else None
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        back.write(asked)
        asking = asyncio.create_task(_pass_on(reader, back))
        try:
            await _pass_on(there, writer, cut, torn=self._torn)
        finally:
            asking.cancel()
            if self._reset and cut is not None:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            writer.close()
            back.close()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, records: int | None = None, *, torn: bool = False
) -> None:
    """Pass bytes on until they end, or until so many SSE records are through."""
    left = None if records is None else records + torn
    while data := await reader.read(65_536):
        if left is not None:
            *whole, _ = data.split(b"\n\n")
            if len(whole) >= left:
                data = b"".join(record + b"\n\n" for record in whole[:left])
                writer.write(data[:-4] if torn else data)  # without its last two bytes and what ends it
                await writer.drain()
                return
            left -= len(whole)
        writer.write(data)
        await writer.drain()
