"""Follows a recipe's ``chat``, above, as ``follow.mjs`` does, with a thread for each URL."""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx as stopping

GIVEN = json.loads(sys.argv[-1])
CHAT: Callable[[str, str], Iterator[dict[str, Any]]] = globals()["chat"]


def show(place: int, event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps([place, event]) + "\n")
    sys.stdout.flush()


def follow(place: int, url: str) -> None:
    try:
        for told in CHAT(url, GIVEN["message"]):
            show(place, told)
            if told["event"] == "run.started":
                run_id = told["run_id"]
            if GIVEN["stop"] and told["event"] == "text.delta":
                stopping.post(f"{url}/runs/{run_id}/cancel")
        show(place, {"event": "returned"})
    except (ValueError, RuntimeError) as refused:
        show(place, {"event": "raised", "message": str(refused)})


with ThreadPoolExecutor(max_workers=len(GIVEN["urls"])) as threads:
    list(threads.map(follow, range(len(GIVEN["urls"])), GIVEN["urls"]))
