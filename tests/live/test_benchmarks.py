"""The benchmarks run and find something; what they find is no matter here."""

import sys

import pytest

from benchmarks import databases, replicas, retrieval, takeover
from benchmarks.cost import Load, run
from benchmarks.peers import PARLEY_ON_POSTGRES
from tests.programs import unavailable

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


def test_cost_measures_parley_on_postgres() -> None:
    if (missing := PARLEY_ON_POSTGRES.missing()) is not None:
        unavailable(missing)
    [report] = run(short=True, peers=["parley", "parley-postgres"], loads=[Load("cost", streams=5, seconds=1)])
    assert [label for label, *_ in report.rows] == ["Parley", "Parley on PostgreSQL"]
    assert any("on PostgreSQL at most 1.3 times" in note for note in report.notes)


def test_replicas_are_measured_beside_one_another() -> None:
    if (missing := databases.missing()) is not None:
        unavailable(missing)
    carrying = replicas.carrying(streams=3, seconds=1, rounds=1)
    assert [row[:2] for row in carrying.rows] == [(1, 3), (1, 6), (2, 6)]
    for _, _, cost, stored, *_ in carrying.rows:
        assert float(str(cost)) > 0
        assert float(str(stored)) > 0
    following = replicas.following(streams=2, seconds=1)
    assert [(row[0], row[3] == "") for row in following.rows] == [(0, True), (1, False), (2, False)]


async def test_search_among_vectors_is_measured() -> None:
    [row] = (await retrieval.cost(500)).rows
    assert row[0] == "500"


def test_takeover_is_measured() -> None:
    if (missing := databases.missing()) is not None:
        unavailable(missing)
    report = takeover.report(streams=2, rounds=1)
    assert [(str(how)[:7], readers) for how, readers, *_ in report.rows] == [("SIGKILL", 2), ("SIGTERM", 2)]
    for _, _, shortest, _, longest in report.rows:
        assert 0 < float(str(shortest)) <= float(str(longest))


def test_cost_knows_its_peers() -> None:
    with pytest.raises(ValueError, match="no such peer: apache"):
        run(short=True, peers=["apache"])
