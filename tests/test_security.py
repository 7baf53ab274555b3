"""What SECURITY.md says about tests is so."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "SECURITY.md").read_text().partition("## Threat model")[2].splitlines()
    if line.startswith("| ") and not line.startswith(("| threat |", "| **"))
]


def test_every_threat_has_a_defence_and_tests_that_are_there() -> None:
    assert len(ROWS) > 20
    for threat, defence, tests in ROWS:
        assert threat
        assert defence
        named = re.findall(r"`(tests/[^`]+\.py)::(test_\w+)`", tests)
        assert ", ".join(f"`{file}::{name}`" for file, name in named) == tests, threat
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), (file, name)


def test_version_that_is_supported_is_the_one_that_there_is() -> None:
    [version] = re.findall(r'^version = "(\d+\.\d+)\.', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"\n| {version} | yes |" in (ROOT / "SECURITY.md").read_text()
