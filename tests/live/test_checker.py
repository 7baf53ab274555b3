"""Several replicas through kills, freezes, partitions and restarts of their database: the short form of ``checker``."""

from pathlib import Path

import pytest

from tests.live.checker import check


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("store", "replicas", "recovery"), [("postgres", 3, "continue"), ("sqlite", 2, "interrupt")])
async def test_every_promise_holds_whatever_goes_wrong(
    tmp_path: Path, store: str, replicas: int, recovery: str
) -> None:
    print(await check(tmp_path, seed=6, store=store, replicas=replicas, recovery=recovery, faults=4))  # noqa: T201
