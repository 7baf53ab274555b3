"""The table of clients is what all marked tests have shown, and nothing less."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]

README = "Before\n<!-- clients: made by tests/seen.py -->\n{}<!-- end of clients -->\nBehind\n"

TABLE = """\
| client | send | stream | resume | stop | tools | errors |
| --- | --- | --- | --- | --- | --- | --- |
| curl | yes |  |  |  |  |  |
| SDK 6 | yes |  |  |  |  | yes |
| SDK 7 | yes |  |  |  |  | yes |
"""

SDK = """
    import pytest

    @pytest.mark.client("SDK {version}", "send")
    @pytest.mark.parametrize("version", ["7", "6"])
    def test_sends(version): pass

    @pytest.mark.client("SDK {version}", "errors")
    @pytest.mark.parametrize("version", ["6", "7"])
    def test_fails(version): pass
"""

CURL = """
    import pytest

    @pytest.mark.client("curl", "send")
    def test_curl(): pass

    def test_nobody(): pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Three tests of two clients, and a README without their table."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take a second to import
    pytester.makeini("[pytest]\nmarkers = client(name, *what): see there\naddopts = --strict-markers -p tests.seen")
    pytester.makepyfile(test_sdk=SDK, test_curl=CURL)
    Path("README.md").write_text(README.format(""))
    return pytester


def test_whole_run_fails_until_the_table_is_written(project: pytest.Pytester) -> None:
    failed = project.runpytest_subprocess()
    failed.assert_outcomes(passed=6, failed=1)
    assert failed.ret == pytest.ExitCode.TESTS_FAILED
    failed.stdout.fnmatch_lines(["*table of clients is not what the tests saw*", *TABLE.splitlines()])
    assert "1 failed, 6 passed" in failed.outlines[-1]
    assert Path("README.md").read_text() == README.format("")

    assert project.runpytest_subprocess("-m", "client", "--write-clients").ret == 0
    assert Path("README.md").read_text() == README.format(TABLE)
    project.runpytest_subprocess().assert_outcomes(passed=6)


@pytest.mark.parametrize(
    "part", [("test_sdk.py",), ("-k", "curl"), ("--ignore=test_sdk.py",), ("--deselect=test_curl.py",)]
)
def test_part_of_the_tests_says_nothing_about_the_table(project: pytest.Pytester, part: tuple[str, ...]) -> None:
    assert project.runpytest_subprocess(*part).ret == 0
    refused = project.runpytest_subprocess(*part, "--write-clients")
    refused.stdout.fnmatch_lines(["*The table was not written*"])
    assert refused.ret == pytest.ExitCode.TESTS_FAILED
    assert Path("README.md").read_text() == README.format("")


@pytest.mark.parametrize("body", ["assert False", "pytest.skip('no curl')"])
def test_client_that_was_not_seen_to_pass_leaves_the_table_alone(project: pytest.Pytester, body: str) -> None:
    project.makepyfile(test_curl=CURL.replace("pass", body, 1))
    told = project.runpytest_subprocess()
    told.assert_outcomes(passed=5, failed=body.startswith("assert"), skipped=body.startswith("pytest"))
    told.stdout.no_fnmatch_line("*table of clients*")


def test_failing_clean_up_is_no_pass(project: pytest.Pytester) -> None:
    fixture = """
    @pytest.fixture(autouse=True)
    def broken():
        yield
        assert False
"""
    project.makepyfile(test_curl=CURL.replace("    import pytest\n", "    import pytest\n" + fixture))
    told = project.runpytest_subprocess()
    told.assert_outcomes(passed=6, errors=2)
    told.stdout.no_fnmatch_line("*table of clients*")


def test_table_that_has_lost_its_place_is_missed(project: pytest.Pytester) -> None:
    Path("README.md").write_text("Nothing")
    project.runpytest_subprocess("--write-clients").stdout.fnmatch_lines(["*no place for the table*"])


def test_unknown_word_is_refused(project: pytest.Pytester) -> None:
    project.makepyfile(test_curl=CURL.replace("send", "sing"))
    told = project.runpytest_subprocess()
    assert told.ret != 0
    told.stderr.fnmatch_lines(["*curl can do*sing*"])
