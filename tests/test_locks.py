"""The files that pip installs from are exports of uv.lock. After a change of the dependencies:

uv lock
uv export --frozen --no-dev --no-emit-project --no-annotate -o requirements.txt
uv export --frozen --no-dev --extra otel --no-emit-project --no-annotate -o requirements-otel.txt
uv export --frozen --no-dev --extra jwt --no-emit-project --no-annotate -o requirements-jwt.txt
uv export --frozen --no-dev --extra mcp --no-emit-project --no-annotate -o requirements-mcp.txt
uv export --frozen --no-dev --extra chatkit --no-emit-project --no-annotate -o requirements-chatkit.txt
uv export --frozen --no-dev --extra postgres --no-emit-project --no-annotate -o requirements-postgres.txt
uv export --frozen --no-dev --extra vectors --no-emit-project --no-annotate -o requirements-vectors.txt
uv export --frozen --no-dev --all-extras --no-emit-project --no-annotate -o requirements-all.txt
uv export --frozen --no-emit-project --no-annotate -o requirements-dev.txt
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED = {package["name"]: package for package in LOCK["package"]}
PARLEY = LOCKED["parley"]
REQUIRED = PARLEY["metadata"]["requires-dist"]

Pins = dict[str, tuple[str, frozenset[str]]]
"""Version and hashes of every package."""


def pinned(path: Path) -> Pins:
    logical_lines = path.read_text().replace("\\\n", " ").splitlines()
    requirements = [line for line in logical_lines if line and not line.startswith("#")]
    return dict(_pin(line) for line in requirements)


def _pin(line: str) -> tuple[str, tuple[str, frozenset[str]]]:
    requirement = Requirement(line.partition("--hash")[0].strip())
    [version] = requirement.specifier
    assert version.operator == "==", line
    return canonicalize_name(requirement.name), (version.version, frozenset(re.findall(r"--hash=(\S+)", line)))


def locked(*roots: list[dict[str, Any]]) -> Pins:
    """Everything that uv.lock says the dependencies ``roots`` bring, whatever the platform."""
    found: Pins = {}
    seen: set[tuple[str, str]] = set()
    waiting = [dependency for root in roots for dependency in root]
    while waiting:
        dependency = waiting.pop()
        package = LOCKED[dependency["name"]]
        found[package["name"]] = (package["version"], frozenset(_hashes(package)))
        for extra in ("", *dependency.get("extra", ())):
            if (package["name"], extra) not in seen:
                seen.add((package["name"], extra))
                brought = (
                    package.get("optional-dependencies", {}).get(extra, [])
                    if extra
                    else package.get("dependencies", [])
                )
                waiting.extend(brought)
    return found


def _hashes(package: dict[str, Any]) -> Iterator[str]:
    for file in [package.get("sdist"), *package.get("wheels", [])]:
        if file is not None:
            yield file["hash"]


def test_the_service_is_installed_from_the_lock() -> None:
    assert pinned(ROOT / "requirements.txt") == locked(PARLEY["dependencies"])


EXTRAS = PARLEY["optional-dependencies"]


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("otel", [EXTRAS["otel"]]),
        ("jwt", [EXTRAS["jwt"]]),
        ("mcp", [EXTRAS["mcp"]]),
        ("chatkit", [EXTRAS["chatkit"]]),
        ("postgres", [EXTRAS["postgres"]]),
        ("vectors", [EXTRAS["vectors"]]),
        ("all", list(EXTRAS.values())),
    ],
)
def test_the_service_with_extras_is_installed_from_the_lock(name: str, extras: list[list[dict[str, Any]]]) -> None:
    assert pinned(ROOT / f"requirements-{name}.txt") == locked(PARLEY["dependencies"], *extras)


def test_the_tests_are_installed_from_the_lock() -> None:
    everything = locked(PARLEY["dependencies"], PARLEY["dev-dependencies"]["dev"])
    assert pinned(ROOT / "requirements-dev.txt") == everything


def _extra(entry: dict[str, Any], name: str = "") -> bool:
    return f"extra == '{name}" in entry.get("marker", "")


@pytest.mark.parametrize(
    ("declared", "recorded"),
    [
        (PROJECT["project"]["dependencies"], [entry for entry in REQUIRED if not _extra(entry)]),
        *(
            (declared, [entry for entry in REQUIRED if _extra(entry, name)])
            for name, declared in PROJECT["project"]["optional-dependencies"].items()
        ),
        (PROJECT["dependency-groups"]["dev"], PARLEY["metadata"]["requires-dev"]["dev"]),
    ],
    ids=["service", *PROJECT["project"]["optional-dependencies"], "tests"],
)
def test_the_lock_was_made_from_the_project(declared: list[str], recorded: list[dict[str, Any]]) -> None:
    assert {_parts(Requirement(line)) for line in declared} == {
        (entry["name"], _specifiers(entry.get("specifier", "")), tuple(entry.get("extras", ()))) for entry in recorded
    }


def _parts(requirement: Requirement) -> tuple[str, frozenset[str], tuple[str, ...]]:
    return (
        canonicalize_name(requirement.name),
        _specifiers(str(requirement.specifier)),
        tuple(sorted(requirement.extras)),
    )


def _specifiers(text: str) -> frozenset[str]:
    return frozenset(text.replace(" ", "").split(","))


APART = [
    "tests/third-party.txt",
    "tests/pgvector.txt",
    "benchmarks/wordllama.txt",
    "examples/streamlit/requirements.txt",
]
"""Environments of their own; the files that these are made from say how."""


@pytest.mark.parametrize("name", [*(file.name for file in ROOT.glob("requirements*.txt")), *APART])
def test_every_file_to_install_has_a_hash(name: str) -> None:
    pins = pinned(ROOT / name)
    assert pins
    assert [package for package, (_, hashes) in pins.items() if not hashes] == []


def test_locks_name_only_the_public_registries() -> None:
    hosts = set(re.findall(r'https?://([^/"\s]+)', (ROOT / "uv.lock").read_text()))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
    for path in APART:
        assert re.findall(r"https?://|--(?:extra-)?index-url|--find-links", (ROOT / path).read_text()) == []


@pytest.mark.parametrize("folder", [".", "examples/react"])
def test_locks_of_node_name_only_the_public_registry(folder: str) -> None:
    node = json.loads((ROOT / folder / "package-lock.json").read_text())
    urls = {package["resolved"] for package in node["packages"].values() if "resolved" in package}
    assert urls
    assert [url for url in urls if not url.startswith("https://registry.npmjs.org/")] == []
