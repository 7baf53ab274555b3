"""The benchmarks run and find something; what they find is no matter here."""

import sys

import pytest

from benchmarks.cost import Load, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")


def test_cost_compares_parley_with_the_pass_through() -> None:
    [report] = run(short=True, peers=["passthrough", "parley"], loads=[Load("cost", streams=5, seconds=1)])
    assert [row[0] for row in report.rows] == ["bare aiohttp pass-through", "Parley"]
    for _, cost, ratio, *_, request, memory in report.rows:
        assert float(str(cost)) > 0
        assert float(str(ratio)) > 0
        assert float(str(request)) > 0
        assert float(str(memory)) > 0
    assert report.markdown().count("\n| ") == len(["columns", "rule", "pass-through", "Parley"])


def test_cost_knows_its_peers() -> None:
    with pytest.raises(ValueError, match="no such peer: apache"):
        run(short=True, peers=["apache"])
