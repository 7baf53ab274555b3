import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from chat.engine import Engine
from tests.scripted import STOP, ScriptedModel, engine_on

# How long an example takes says how busy the machine is. A fixture that all examples share is asked for where it is
# meant: those tests take a new session each time.
settings.register_profile(
    "parley", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("parley")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


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
