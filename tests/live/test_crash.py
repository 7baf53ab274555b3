"""A service that is killed at random keeps what it acknowledged and what it showed: the short form of ``crash``."""

from pathlib import Path

import pytest

from tests.live.crash import crash


@pytest.mark.parametrize(("recovery", "workers"), [("continue", 1), ("interrupt", 1), ("continue", 2)])
async def test_nothing_acknowledged_or_shown_is_lost_by_kills(tmp_path: Path, recovery: str, workers: int) -> None:
    print(await crash(tmp_path, kills=6, seed=23, recovery=recovery, workers=workers))  # noqa: T201
