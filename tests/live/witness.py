"""A client that asks until it is answered, comes back until it has seen the end, and remembers every frame."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.live.checks import ENDS
from tests.live.service import PATIENCE, Frame, Service, frames

AGAIN = 0.05
"""Seconds before it knocks again at a service that is not there."""


class NotNowError(Exception):
    """The service is not there, or says that it cannot answer now."""


@dataclass(slots=True)
class Account:
    """What was said, and what was seen of the answer: ``seen[n]`` is the event with the id ``n + 1``.

    ``run_id`` is there when the service has acknowledged the message. ``stop_asked``: somebody wanted it to end;
    ``stopped``: and the service has said that it did.
    """

    key: str
    body: dict[str, Any]
    run_id: str = ""
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)
    stop_asked: bool = False
    stopped: bool = False
    seen: list[Frame] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return bool(self.seen) and (self.seen[-1].event in ENDS or self.seen[-1].data == "[DONE]")

    @property
    def headers(self) -> dict[str, str]:
        """Those of a request that says it once more, or goes on behind what was seen."""
        cursor = {"Last-Event-ID": f"{self.run_id}.{len(self.seen)}"} if self.seen else {}
        return {"Idempotency-Key": self.key} | cursor

    def see(self, frame: Frame) -> None:
        """Take a frame down; it has to be the next one."""
        if frame.id is None:
            return  # a notice, or when to come back
        run_id, _, seq = frame.id.rpartition(".")
        assert run_id == self.run_id, f"{frame} on the stream of {self.run_id}"
        if int(seq) == len(self.seen) and frame.event in (None, "run.started"):
            return  # the cursor, repeated at the start of a stream
        assert int(seq) == len(self.seen) + 1, f"{frame} behind {self.seen[-1:]}"
        assert not self.ended, f"{frame} behind the end {self.seen[-1]}"
        self.seen.append(frame)


class Witness:
    """``restless``: the probability of leaving behind any frame, to come back at once."""

    def __init__(self, service: Service, draw: random.Random, *, restless: float = 0.0) -> None:
        self.accounts: list[Account] = []
        self._service = service
        self._draw = draw
        self._restless = restless

    async def ask(self, *, stop_after: float | None = None, **body: Any) -> Account:
        """Say something and see the answer to its end, or to the stop that is asked for after so many seconds."""
        account = Account(f"key-{self._draw.getrandbits(64):016x}", {"format": "text", **body})
        self.accounts.append(account)
        async with asyncio.TaskGroup() as group:
            if stop_after is not None:
                group.create_task(self._stop(account, stop_after))
            while not account.ended:
                try:
                    await self._look(account)
                except (httpx.TransportError, NotNowError):
                    await asyncio.sleep(AGAIN)
        return account

    async def _stop(self, account: Account, after: float) -> None:
        await account.acknowledged.wait()
        await asyncio.sleep(after)
        account.stop_asked = True
        while True:
            try:
                response = await self._service.client.post(f"/runs/{account.run_id}/cancel")
                self._passed(response)
            except (httpx.TransportError, NotNowError):
                await asyncio.sleep(AGAIN)
            else:
                account.stopped = response.json()["status"] == "cancelled"
                return

    async def _look(self, account: Account) -> None:
        """Open one stream and see what it brings."""
        follow = account.run_id and self._draw.random() < 0.7
        request: dict[str, Any] = {"headers": account.headers}
        if follow:
            query = {"format": account.body["format"]}
            method, path = "GET", f"/runs/{account.run_id}/events"
            request["params"] = query
        else:
            method, path = "POST", "/chat"
            request["json"] = account.body
        async with asyncio.timeout(PATIENCE * 3), self._service.client.stream(method, path, **request) as response:
            if response.status_code == 204:
                raise AssertionError(f"told that {account.run_id} has ended, and the end was not seen")
            if response.status_code != 200:
                await response.aread()
                self._passed(response)
            assert account.run_id in ("", response.headers["x-run-id"]), "the same request became another run"
            account.run_id = response.headers["x-run-id"]
            account.acknowledged.set()
            async for frame in frames(response):
                account.see(frame)
                if self._draw.random() < self._restless:
                    return

    @staticmethod
    def _passed(response: httpx.Response) -> None:
        if response.status_code == 503:
            raise NotNowError
        assert response.status_code == 200, f"{response.request.url}: {response.text}"
