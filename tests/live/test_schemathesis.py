"""Schemathesis over the description of the API: whatever it allows is taken, and all else is refused."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.live.conftest import Serve
from tests.live.service import ROOT
from tests.programs import unavailable
from tests.upstream import Upstream, completion

SCHEMATHESIS = ROOT / ".venv-schemathesis/bin/schemathesis"
HERE = ROOT / "tests/schemathesis"

CASES = 3_000


@pytest.mark.timeout(600)
async def test_description_and_service_agree(serve: Serve, tmp_path: Path) -> None:
    if not SCHEMATHESIS.exists():
        unavailable("Schemathesis: VENV=.venv-schemathesis scripts/install.sh tests/schemathesis/requirements.txt")
    async with Upstream(completion("Hello there.")) as upstream:
        # The model that the description's examples name.
        service = await serve(BASE_URL=upstream.base_url, OPENAI_API_KEY="sk-test", MODEL_NAME="gpt-4o-mini")
        run_id = (await service.client.post("/chat", json={"message": "Hello"})).headers["X-Run-Id"]
        config = tmp_path / "schemathesis.toml"
        ids = {"path.run_id": run_id, "path.response_id": f"resp_{run_id}"}
        given = "".join(f'"{name}" = "{value}"\n' for name, value in ids.items())
        config.write_text(f"{(HERE / 'config.toml').read_text()}\n[parameters]\n{given}")
        command = f"{SCHEMATHESIS} --config-file {config} run {service.url}/openapi.json --seed=1 --workers=2"
        options = "--phases=examples,coverage,fuzzing --checks=all --continue-on-failure --no-color"
        process = await asyncio.create_subprocess_exec(
            *f"{command} {options}".split(),
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told = (await process.communicate())[0].decode()
    assert process.returncode == 0, told[-60000:]
    cases = re.search(r"(\d+) generated", told)
    assert cases is not None
    assert int(cases[1]) > CASES
