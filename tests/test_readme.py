"""What the README says about settings and routes is what there is."""

import re
from pathlib import Path

from starlette.routing import Route

from handlers import ROUTES
from mcp_tools.config import load_servers
from settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MODELS_AND_TOOLS = (ROOT / "docs/models-and-tools.md").read_text()


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
