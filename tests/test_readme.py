"""What the README says about settings and routes is what there is."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from starlette.routing import Route

from handlers import ROUTES
from mcp_tools.config import load_servers
from settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MODELS_AND_TOOLS = (ROOT / "docs/models-and-tools.md").read_text()


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
INSTALLED = {"docker", "curl", "awk", "od", "sed", "ask", "echo", "mkdir", "kubectl", "npm", "git"}
"""Programs that are not this repository's, and a function that its lines define."""


def default_of(value: object) -> str:
    return "" if value is None else f"`{getattr(value, 'value', value)}`"


def test_every_setting_is_in_the_table_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    fields = Settings.model_fields.items()
    expected = [(name.upper(), default_of(field.default), field.description) for name, field in fields]
    assert [(name, default.strip(), meaning) for name, default, meaning in rows] == expected


def test_every_setting_is_in_the_example_file_with_its_default() -> None:
    lines = re.findall(r"^# ([A-Z_]+)=(\S*)", (ROOT / ".env.example").read_text(), re.MULTILINE)
    defaults = {name.upper(): field.default for name, field in Settings.model_fields.items()}
    assert {name for name, _ in lines} == set(defaults)
    for name, value in lines:
        if defaults[name] is not None:
            field = Settings.__pydantic_fields__[name.lower()]
            assert str(getattr(field.default, "value", field.default)).removesuffix(".0") == value, name


def test_every_limit_is_in_the_table_with_its_default() -> None:
    text = (ROOT / "docs/limits.md").read_text()
    rows = re.findall(r"^\| [^|]* \| `([A-Z_]+)` \| `(.*?)` \|", text, re.MULTILINE)
    defaults = {name.upper(): field.default for name, field in Settings.model_fields.items()}
    assert rows == [(name, str(defaults[name])) for name, _ in rows]
    limits = {name for name in defaults if re.match(r"MAX_|DAILY_|\w+_RATE$|(RUN|HEADER|BODY)_SECONDS$", name)}
    assert {name for name, _ in rows} == limits | {"SEND_TIMEOUT"}


def test_every_route_is_in_the_table() -> None:
    written = set(re.findall(r"^\| `([A-Z]+) (/\S*)` \|", README, re.MULTILINE))
    there = {
        (method, route.path_format)
        for route in ROUTES
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert written == there


def test_mcp_servers_of_the_example_are_right(tmp_path: Path) -> None:
    blocks = re.findall(r"```json\n(.*?)```", MODELS_AND_TOOLS, re.DOTALL)
    [example] = [block for block in blocks if "mcpServers" in block]
    (tmp_path / "mcp.json").write_text(example)
    servers = load_servers(tmp_path / "mcp.json", {"GITHUB_TOKEN": "ghp_x"})
    assert [(server.name, server.headers.get("Authorization")) for server in servers] == [
        ("time", None),
        ("github", "Bearer ghp_x"),
    ]


def commands() -> Iterator[tuple[str, str]]:
    """What the pages have their readers type, from its first word on."""
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = re.sub(r"^(?:[A-Za-z_]+=(?:'[^']*'|\$\(.*\)|\S*)\s*)+", "", line).strip()
                if command and not command.startswith(("#", "}")) and "() {" not in command:
                    yield page.name, command
        for command in re.findall(r"`((?:python3?|uvicorn|\./[^\s`]+|\.venv/[^\s`]+) [^`]+)`", text):
            yield page.name, command


def test_every_command_is_there_in_a_fresh_clone() -> None:
    scripts, unknown = set(), []
    for page, command in commands():
        program, *_ = command.split()
        if program.startswith("./"):
            scripts.add(program)
        elif program not in INSTALLED | {".venv/bin/python", ".venv/bin/uvicorn"} and "http.server" not in command:
            unknown.append((page, command))
    assert unknown == []
    assert scripts > {"./scripts/run.sh", "./scripts/install.sh"}
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), script
