import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tools.names import name_of, prefix_of


@pytest.mark.parametrize(
    ("server", "tool", "name"),
    [
        ("files", "read", "files__read"),
        ("brave-search", "web_search", "brave-search__web_search"),
        ("@scope/my server", "read", "scope_my_server__read"),
        ("a__b", "c", "a_b__c"),
        ("a_", "_b", "a___b"),
        ("files", "read.all", "files__read_all_8fb73bbb"),
        ("files", "read all", "files__read_all_25a56d7f"),
        ("files", "", "files__e3b0c442"),
        ("文", "read", "3677ef77__read"),
        ("files", "x" * 57, "files__" + "x" * 57),
        ("files", "x" * 58, "files__" + "x" * 48 + "_5ef8b2e5"),
        ("s" * 30, "read", "s" * 30 + "__read"),
        ("s" * 31, "read", "s" * 21 + "_8996372c__read"),
    ],
)
def test_tool_is_named_after_its_server(server: str, tool: str, name: str) -> None:
    assert name_of(prefix_of(server), tool) == name


@given(st.text(), st.text())
def test_any_name_becomes_one_that_models_may_be_told_of(server: str, tool: str) -> None:
    prefix = prefix_of(server)
    name = name_of(prefix, tool)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
    assert name.startswith(f"{prefix}__")
    assert name.partition("__")[0] == prefix


@given(st.text(max_size=40), st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_two_tools_have_two_names(server: str, tools: list[str]) -> None:
    first, second = (name_of(prefix_of(server), tool) for tool in tools)
    assert first != second
