import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scripted import STOP, ScriptedModel
from tests.serving import Client, served


@pytest.fixture
def gate() -> asyncio.Event:
    """Open, unless a test closes it: the model's second word waits for it."""
    gate = asyncio.Event()
    gate.set()
    return gate


@pytest.fixture
def model(gate: asyncio.Event) -> ScriptedModel:
    return ScriptedModel(["Hello ", gate, "there", STOP])


@pytest.fixture
async def client(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Client]:
    async with served(tmp_path, model) as client:
        yield client
