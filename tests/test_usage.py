from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.events import Usage
from chat.usage import MAX_COST, Price, Share, priced, tokens_in
from tests.strategies import usages

MINI = Price(Decimal("0.15"), Decimal("0.6"), cached=Decimal("0.075"))


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("é" * 4, 2), ("漢字", 2), ("\ud800", 1)]
)
def test_four_bytes_are_a_token(text: str, tokens: int) -> None:
    assert tokens_in(text) == tokens


@given(usages, usages)
def test_usage_adds_up_and_is_reported_only_if_all_of_it_is(one: Usage, other: Usage) -> None:
    both = one + other
    assert (both.input_tokens, both.output_tokens) == (
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
    )
    assert both.cached_tokens == one.cached_tokens + other.cached_tokens
    assert both.reasoning_tokens == one.reasoning_tokens + other.reasoning_tokens
    assert both == other + one
    assert (both.source == "reported") == ({one.source, other.source} == {"reported"})


def test_cost_is_of_fresh_cached_and_answered_tokens() -> None:
    assert MINI.of(Usage(812, 240, cached_tokens=512, reasoning_tokens=96)) == 227_400
    assert MINI.of(Usage(0, 0)) == 0
    assert MINI.of(Usage(1, 0)) == 150
    assert MINI.of(Usage(1_000_000, 1_000_000)) == 750_000_000


def test_price_of_less_than_a_nano_dollar_a_token_is_rounded_once_a_run() -> None:
    tenth = Price(Decimal("0.0001"), Decimal("0.0001"), cached=Decimal(0))
    assert tenth.of(Usage(1, 0)) == 0
    assert tenth.of(Usage(1_000, 14)) == 101


@given(usages, st.decimals(0, 1_000_000, places=4))
def test_cost_fits_where_sums_of_it_go(usage: Usage, dollars: Decimal) -> None:
    cost = Price(dollars, dollars, dollars).of(usage)
    assert isinstance(cost, int)
    assert 0 <= cost <= MAX_COST


def test_every_share_has_the_price_of_its_model_or_no_cost() -> None:
    one, other = Usage(1, 0), Usage(2, 0)
    found = priced({"gpt-4o-mini": one, "gpt-4o": other}, {"gpt-4o-mini": MINI})
    assert found == [Share("gpt-4o-mini", one, 150), Share("gpt-4o", other, None)]
    assert priced({}, {"gpt-4o-mini": MINI}) == []
