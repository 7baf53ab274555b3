"""What the operator writes: settings are right, or the end of the process with one line that quotes no secret."""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tools.config import load_servers
from settings import Settings, load_settings
from tests.fuzz.strategies import nearly, odd_texts, written

SECRET = "Sesame123456"

NAMES = sorted(name.upper() for name in Settings.model_fields)


@contextmanager
def environment(folder: str, variables: Mapping[str, str]) -> Iterator[None]:
    """Only these variables, and a folder without a file."""
    before, place = dict(os.environ), Path.cwd()
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)


addresses = st.one_of(
    odd_texts,
    st.lists(
        st.sampled_from(["sqlite:///", "postgresql://", "postgres://", f"u:{SECRET}@",
                         "h", "[::1", "]", ":5432", ":x", "/", "d", "?", "&",
                         "a=b", "statement_cache_size=", "0", "#", "%zz", "x.db", "@", " "]), max_size=8).map("".join),
)  # fmt: skip

values = st.one_of(
    odd_texts.map(lambda text: text.replace("\0", "").encode("utf-8", "ignore").decode()),
    st.sampled_from(["0", "1", "true", "jwt", "keys", "*", "https://a.example", "10.0.0.0/8", "1/minute", "echo", "a,b",
                     '{"a": {"input": 1, "output": 2}}', '{"a": 1}', "https://h/v1"]),
)  # fmt: skip


hidden = st.dictionaries(
    st.sampled_from([name for name in NAMES if re.search("_(KEY|SECRET|URL|ENDPOINT|HEADERS)$", name)]),
    st.sampled_from([SECRET, f"https://u:{SECRET}@h/v1", f"a={SECRET}", f"{SECRET}\\", f"https://{SECRET}@:x"]),
    max_size=2,
)
"""What may have a secret in it, and is never shown."""


@settings(max_examples=150)
@given(
    st.builds(lambda some, others: some | others, st.dictionaries(st.sampled_from(NAMES), values, max_size=3), hidden),
    addresses | st.none(),
)
def test_settings_are_right_or_one_line_says_what_is_wrong(variables: dict[str, str], address: str | None) -> None:
    # Whoever names a folder means it; here none is made outside of this one.
    variables = {name: value for name, value in variables.items() if name not in ("TEMPLATES_DIR", "MCP_SERVERS")}
    if address is not None and not address.startswith("sqlite:////") and "\0" not in address and ".." not in address:
        variables["DATABASE_URL"] = address.encode("utf-8", "ignore").decode()
    elif not variables.get("DATABASE_URL", "").startswith("postgres"):
        variables.pop("DATABASE_URL", None)
    with tempfile.TemporaryDirectory() as folder, environment(folder, variables):
        try:
            found = load_settings([])
        except SystemExit as error:
            told = str(error.code)
            assert told.startswith("Wrong setting: ")
            assert SECRET not in told
        else:
            assert found.place
            assert SECRET not in repr(found)


servers = st.just(
    {"mcpServers": {
        "time": {"command": "uvx", "args": ["a"], "env": {"A": "${B:-c}"}, "approval": ["x"], "timeout": 5},
        "far": {"url": "https://a.example/mcp", "headers": {"Authorization": f"Bearer {SECRET}"}, "tools": ["y"]},
    }}
)  # fmt: skip


@given(nearly(servers).map(written) | st.binary(max_size=30))
def test_a_list_of_servers_is_right_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mcp.json"
        path.write_bytes(content)
        try:
            found: Any = load_servers(path, {})
        except ValueError as error:
            assert SECRET not in str(error)
        else:
            assert all(server.prefix for server in found)
