"""What tests have seen clients do, and the README's table made of it.

A test that drives a client is marked with its name and with what the test shows that it can do::

    @pytest.mark.client("OpenAI Python, responses", "send", "stream")

- ``send``: it begins an answer with a message of its own.
- ``stream``: it has the answer piece by piece.
- ``resume``: cut off at every event, or by a crash of the service, it comes to the whole text, and of one run.
- ``stop``: an answer that is stopped ends in it as one that was, with what there is.
- ``tools``: it shows what tools are called, or runs its own.
- ``errors``: it says why there is no answer, or only a part of one.

A name may hold parameters of the test: ``"AI SDK {version}"``.

The table is compared with the README's, and a difference fails the run, when all of these tests have passed and no path
has been given. Anything less says nothing about the table. After a change::

    scripts/test.sh -m client --write-clients

Marks travel with the reports, and with them how many there are: under pytest-xdist the process that gathers the reports
collects no test, and its workers, which do, run a part of them each.
"""

import re
from typing import TypeAlias, cast

import pytest

WORDS = ("send", "stream", "resume", "stop", "tools", "errors")
"""The table's columns."""

TABLE = re.compile(r"(?<=<!-- clients: made by tests/seen.py -->\n).*?(?=<!-- end of clients -->)", re.DOTALL)

REWRITE = "scripts/test.sh -m client --write-clients"

Marks: TypeAlias = list[tuple[str, tuple[str, ...]]]
"""Names, and what each can do."""


class Seen:
    """Of one run of pytest: the marked tests that have passed."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._marked: dict[pytest.Item, Marks] = {}
        self._passed: dict[str, Marks] = {}
        self._of = -1
        """How many marked tests there are, as the reports say."""

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Also of those that ``-k`` and ``-m`` leave out."""
        if marks := _marks(item):
            self._marked[item] = marks

    def pytest_collection_finish(self) -> None:
        for item, marks in self._marked.items():
            item.user_properties.append(("clients", (len(self._marked), marks)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "clients":
                self._of, marks = cast(tuple[int, Marks], value)
                if report.when == "call" and report.passed:
                    self._passed[report.nodeid] = marks
                elif not report.passed:  # its clean-up may fail yet
                    self._passed.pop(report.nodeid, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        writes = self._config.getoption("--write-clients")
        if hasattr(self._config, "workerinput"):  # of pytest-xdist
            return
        if not self._whole():
            if writes:
                self._fail(
                    session, f"The table was not written: {len(self._passed)} marked tests have passed, not all."
                )
            return
        readme = self._config.rootpath / "README.md"
        there, seen = readme.read_text(), table([one for marks in self._passed.values() for one in marks])
        if not TABLE.search(there):
            self._fail(session, "README.md has no place for the table of clients.")
        elif writes:
            readme.write_text(TABLE.sub(lambda _: seen, there))
        elif TABLE.findall(there) != [seen]:
            self._fail(
                session, f"The README's table of clients is not what the tests saw:\n\n{seen}\nMake it so: {REWRITE}"
            )

    def _whole(self) -> bool:
        option = self._config.option
        narrowed = option.lf or option.ignore or option.ignore_glob
        everywhere = self._config.args_source is not pytest.Config.ArgsSource.ARGS
        return everywhere and not narrowed and len(self._passed) == self._of

    def _fail(self, session: pytest.Session, why: str) -> None:
        """As a test would, so that pytest's last line counts it."""
        place = ("README.md", None, "table of clients")
        report = pytest.TestReport("README.md::table of clients", place, {}, "failed", why, "call")
        self._config.hook.pytest_runtest_logreport(report=report)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def table(marks: Marks) -> str:
    """A row for each client, by its name, and a column for each word."""
    clients: dict[str, set[str]] = {}
    for name, what in marks:
        clients.setdefault(name, set()).update(what)
    head = [["client", *WORDS], ["---"] * (1 + len(WORDS))]
    names = sorted(clients, key=str.casefold)
    rows = [[name, *("yes" if word in clients[name] else "" for word in WORDS)] for name in names]
    return "".join([f"| {' | '.join(row)} |\n" for row in head + rows])


def _marks(item: pytest.Item) -> Marks:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    marks = [(str(mark.args[0]).format(**parameters), mark.args[1:]) for mark in item.iter_markers("client")]
    for name, what in marks:
        if not what or set(what) - set(WORDS):
            raise pytest.UsageError(f"{item.nodeid}: {name} can do {what}, and the words are {WORDS}")
    return marks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-clients", action="store_true", help="make the README's table of clients anew")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Seen(config))
