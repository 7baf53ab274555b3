"""The file that lists the servers, and what is said of one that is wrong."""

import json
import re
from pathlib import Path

import pytest

from mcp_tools.config import ServerConfig, load_servers

SECRET = "canary-of-the-secret"


def loaded(folder: Path, servers: object, **environment: str) -> list[ServerConfig]:
    file = folder / "mcp.json"
    file.write_text(json.dumps({"mcpServers": servers, "inputs": []}))
    return load_servers(file, environment)


def test_servers_are_read_as_other_clients_read_them(tmp_path: Path) -> None:
    local, remote, typed = loaded(
        tmp_path,
        {
            "files": {
                "command": "npx",
                "args": ["-y", "server", "${FOLDER}/x"],
                "env": {"TOKEN": "${TOKEN}", "LEVEL": "${LEVEL:-low}", "PRICE": "$5 ${EMPTY:-}"},
                "cwd": "${FOLDER}",
            },
            "web": {
                "url": "https://${HOST:-example.org}/mcp",
                "headers": {"Authorization": "Bearer ${TOKEN}"},
                "approval": True,
                "tools": ["search"],
                "timeout": 5,
            },
            "typed": {"type": "http", "url": "http://localhost:1/mcp", "approval": ["drop"]},
            "off": {"disabled": True, "command": "${UNSET}"},
        },
        TOKEN=SECRET, FOLDER="/data", EMPTY="",
    )  # fmt: skip
    assert (local.command, local.args, local.cwd) == ("npx", ["-y", "server", "/data/x"], "/data")
    assert local.env == {"TOKEN": SECRET, "LEVEL": "low", "PRICE": "$5 "}
    assert (local.approval, local.tools, local.timeout) == (False, None, 30)
    assert (remote.url, remote.headers) == ("https://example.org/mcp", {"Authorization": f"Bearer {SECRET}"})
    assert (remote.approval, remote.tools, remote.timeout) == (True, frozenset({"search"}), 5)
    assert typed.approval == frozenset({"drop"})
    assert SECRET not in repr([local, remote])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("npx", "x is not an object"),
        ({}, "x: give it either a command or a url"),
        ({"command": "a", "url": "http://b"}, "x: give it either a command or a url"),
        ({"command": ""}, "x.command: String should have at least 1 character"),
        ({"command": "a\0b"}, "x.command: has a NUL in it"),
        ({"command": "a", "args": "-y"}, "x.args: 'str' instances are not allowed"),
        ({"command": "a", "env": {"PORT": 8000}}, "x.env.PORT: Input should be a valid string"),
        ({"command": "a", "headers": {}}, "x: headers does not go with command"),
        ({"url": "http://b", "args": []}, "x: args does not go with url"),
        ({"url": "http://b", "type": "stdio"}, "x: type stdio does not go with url"),
        ({"url": "http://b", "type": "sse"}, "x.type: Input should be 'stdio', 'http', "),
        ({"url": "localhost:80"}, "x.url: use http:// or https:// and a host"),
        ({"url": "http://b", "headers": {"A B": "c"}}, "x.headers: 'A B' has characters that no header may have"),
        ({"url": "http://b", "headers": {"A": f"{SECRET}\n"}}, "x.headers: 'A' has characters that no header may have"),
        ({"url": "http://b", "headers": {"A": "${UNSET}"}}, "x.headers.A: ${UNSET} is not set"),
        ({"command": "a", "args": ["b", "${EMPTY}"]}, "x.args.1: ${EMPTY} is not set"),
        ({"command": "a", "approval": "yes"}, "x.approval: use true, false or a list of tools"),
        ({"command": "a", "approval": [1]}, "x.approval."),
        ({"command": "a", "tools": "b"}, "x.tools: Input should be a valid frozenset"),
        ({"command": "a", "timeout": 0}, "x.timeout: Input should be greater than 0"),
        ({"command": "a", "timeout": "1e999"}, "x.timeout: Input should be a finite number"),
        ({"command": "a", "aproval": True}, "x.aproval: Extra inputs are not permitted"),
        ({"command": "a", "name": "b"}, "x.name: Extra inputs are not permitted"),
        ({"command": "a", "disabled": "yes"}, "x.disabled: Input should be a valid boolean"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_quotes_no_value(tmp_path: Path, given: object, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(said)}") as caught:
        loaded(tmp_path, {"x": given}, SECRET=SECRET, EMPTY="")
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON: EOF while parsing a value at line 1 column 0"),
        (b'{"mcpServers": {"x": ' + SECRET.encode(), "is not JSON: expected value at line 1 column 22"),
        (b"\xff", "is not JSON: expected value at line 1 column 1"),
        (b"[" * 100_000, "is not JSON: recursion limit exceeded"),
        (b"[]", 'has no object "mcpServers"'),
        (b'{"servers": {}}', 'has no object "mcpServers"'),
        (b'{"mcpServers": []}', 'has no object "mcpServers"'),
    ],
)
def test_file_that_is_none_of_this_kind_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "mcp.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(f'{file} {said}')}"):
        load_servers(file, {})


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mcp\.json cannot be read: No such file or directory"):
        load_servers(tmp_path / "mcp.json", {})


def test_servers_whose_tools_could_not_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the tools of my server and my/server would have the same names: my_server__"):
        loaded(tmp_path, {"my server": {"command": "a"}, "my/server": {"command": "b"}})
