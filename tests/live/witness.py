"""A client that asks until it is answered, comes back until it has seen the end, and remembers every frame."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from tests.live.checks import ENDS
from tests.live.history import History, Kind
from tests.live.service import PATIENCE, Frame, frames

AGAIN = 0.05
"""Seconds before it knocks again at a service that is not there."""


class NotNowError(Exception):
    """The service is not there, or says that it cannot answer now."""


class Front(Protocol):
    """Where requests go: a service, or one of several each time that it is asked for."""

    @property
    def client(self) -> httpx.AsyncClient: ...


@dataclass(slots=True)
class Account:
    """What was said, and what was seen of the answer: ``seen[n]`` is the event with the id ``n + 1``.

    ``run_id`` is there when the service has acknowledged the message. ``stop_asked``: somebody wanted it to end;
    ``stopped``: and the service has said that it did. ``refused``: the session was busy, and nothing came of it unless
    it is ``doubtful``, because an earlier try of the same was never answered. ``first_asked`` and ``answered`` are by
    the loop's clock.
    """

    key: str
    body: dict[str, Any]
    path: str = "/chat"
    run_id: str = ""
    first_asked: float = 0.0
    answered: float = 0.0
    refused: bool = False
    doubtful: bool = False
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

    def __init__(
        self, front: Front, draw: random.Random, *, restless: float = 0.0, history: History | None = None
    ) -> None:
        self.accounts: list[Account] = []
        self.history = history or History()
        self._front = front
        self._draw = draw
        self._restless = restless

    async def ask(self, *, path: str = "/chat", stop_after: float | None = None, **body: Any) -> Account:
        """Say something and see the answer to its end, or to the stop that is asked for after so many seconds."""
        account = Account(f"key-{self._draw.getrandbits(64):016x}", {"format": "text", **body}, path)
        self.accounts.append(account)
        async with asyncio.TaskGroup() as group:
            if stop_after is not None:
                group.create_task(self._stop(account, stop_after))
            await self.see_through(account)
            account.acknowledged.set()  # a stop need not wait for what was refused
        return account

    async def see_through(self, account: Account) -> None:
        account.first_asked = asyncio.get_running_loop().time()
        with self.history.concerning(account.key):
            while not (account.ended or account.refused):
                try:
                    await self._look(account)
                except (httpx.TransportError, NotNowError) as error:
                    account.doubtful = account.doubtful or not account.run_id
                    self._tell("info", account, repr(error))
                    await asyncio.sleep(AGAIN)

    async def ask_again(self, account: Account) -> Account:
        """Another client sends the same once more, and sees the answer from its beginning."""
        again = Account(account.key, account.body, account.path)
        await self.see_through(again)
        assert again.refused or account.refused or again.run_id == account.run_id, "the same request became another run"
        return again

    async def _stop(self, account: Account, after: float) -> None:
        await account.acknowledged.wait()
        if account.refused:
            return
        await asyncio.sleep(after)
        account.stop_asked = True
        while True:
            self._tell("invoke", account, "stop")
            try:
                response = await self._front.client.post(f"/runs/{account.run_id}/cancel")
                self._passed(response)
            except (httpx.TransportError, NotNowError) as error:
                self._tell("info", account, f"stop: {error!r}")
                await asyncio.sleep(AGAIN)
            else:
                account.stopped = response.json()["status"] == "cancelled"
                self._tell("ok", account, f"stop: {response.json()['status']}")
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
            method, path = "POST", account.path
            request["json"] = account.body
        client = self._front.client
        self._tell("invoke", account, f"{method} {client.base_url}{path} behind {len(account.seen)}")
        async with asyncio.timeout(PATIENCE * 3), client.stream(method, path, **request) as response:
            if response.status_code == 204:
                raise AssertionError(f"told that {account.run_id} has ended, and the end was not seen")
            if response.status_code != 200:
                await response.aread()
                if response.status_code == 409 and response.json()["code"] == "run_in_progress":
                    assert not account.run_id, f"refused, and acknowledged before: {response.text}"
                    account.refused = True
                    self._tell("info" if account.doubtful else "fail", account, "the session is busy")
                    return
                self._passed(response)
            assert account.run_id in ("", response.headers["x-run-id"]), "the same request became another run"
            account.run_id = response.headers["x-run-id"]
            account.answered = account.answered or asyncio.get_running_loop().time()
            account.acknowledged.set()
            before = len(account.seen)
            try:
                await self._watch(account, response)
            finally:
                self._tell("ok", account, f"saw {before + 1} to {len(account.seen)}: {account.seen[-1:]}")

    async def _watch(self, account: Account, response: httpx.Response) -> None:
        async for frame in frames(response):
            account.see(frame)
            if frame.id is not None and frame.seq > 0:
                self.history.show(account.run_id, account.body["format"], account.seen[frame.seq - 1])
            if self._draw.random() < self._restless:
                return

    def _tell(self, kind: Kind, account: Account, what: str) -> None:
        self.history.tell(kind, what, account.key, account.run_id)

    @staticmethod
    def _passed(response: httpx.Response) -> None:
        if response.status_code in (502, 503, 504):  # a load balancer says the others
            raise NotNowError
        assert response.status_code == 200, f"{response.request.url}: {response.text}"
