import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as profiles

from chat.engine import Engine
from settings import Settings
from tests import postgres
from tests.scripted import STOP, ScriptedModel, engine_on

pytest_plugins = ["tests.seen"]

# How long an example takes says how busy the machine is. A fixture that all examples share is asked for where it is
# meant: those tests take a new session each time.
profiles.register_profile(
    "parley", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
profiles.load_profile("parley")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The URL of a PostgreSQL database that has the tables."""
    loop = asyncio.new_event_loop()
    making = postgres.database()
    url = loop.run_until_complete(making.__aenter__())

    async def fill() -> None:
        async with postgres.opened_store(url):
            pass

    try:
        loop.run_until_complete(fill())
        yield url
    finally:
        loop.run_until_complete(making.__aexit__(None, None, None))
        loop.close()


@pytest.fixture
def url(database: str) -> str:
    """The same, with nothing in it."""
    asyncio.run(postgres.emptied(database))
    return database


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def model(gate: asyncio.Event) -> ScriptedModel:
    """Says "Hi ", waits for the gate, says "there"."""
    return ScriptedModel(["Hi ", gate, "there", STOP])


@pytest.fixture
async def engine(file: Path, model: ScriptedModel) -> AsyncIterator[Engine]:
    async with engine_on(file, model) as engine:
        yield engine


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ``.env``, and no variables but those that a test sets."""
    monkeypatch.chdir(tmp_path)
    names = {name.upper() for name in Settings.model_fields}
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in names})
