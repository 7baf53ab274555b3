"""`python server.py keys`."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from chat.keys import PREFIX
from store.keys_command import main
from tests.store.files import opened_store

SERVER = Path(__file__).parents[2] / "server.py"


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, file: Path) -> Path | str:
    return file if request.param == "sqlite" else str(request.getfixturevalue("url"))


class Command:
    def __init__(self, place: Path | str, capsys: pytest.CaptureFixture[str]) -> None:
        self._place = place
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = main(arguments, lambda _: self._place)
        said = self._capsys.readouterr()
        return status, said.out, said.err


@pytest.fixture
def keys(place: Path | str, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(place, capsys)


def test_a_key_is_shown_once_and_kept_as_its_digest(keys: Command, place: Path | str) -> None:
    status, out, err = keys("add", "web")
    key = out.removesuffix("\n")
    assert (status, len(key)) == (0, len(PREFIX) + 43)
    assert key.startswith(PREFIX)
    assert key not in err
    assert keys("add", "operator", "--admin")[0] == 0
    status, out, err = keys("list")
    assert status == 0
    assert [line.split("\t")[:2] for line in out.splitlines()] == [["operator", "admin"], ["web", "user"]]
    assert key not in out
    if isinstance(place, Path):
        stored = b"".join(path.read_bytes() for path in place.parent.iterdir())
        assert key.encode() not in stored
        assert hashlib.sha256(key.encode()).hexdigest().encode() in stored


def test_a_key_is_revoked_by_its_name(keys: Command) -> None:
    first = keys("add", "web")[1]
    status, out, err = keys("add", "web")
    assert (status, out, "already" in err) == (1, "", True)
    assert keys("revoke", "web")[0] == 0
    assert keys("list")[1] == ""
    status, out, err = keys("revoke", "web")
    assert (status, out, "no key named web" in err) == (1, "", True)
    assert keys("add", "web")[1] != first


@pytest.mark.parametrize("arguments", [[], ["add"], ["add", "a b"], ["add", ""], ["revoke"], ["make", "x"]])
def test_wrong_arguments_are_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments, lambda _: Path("nowhere"))
    assert ended.value.code == 2
    assert "usage: server.py keys" in capsys.readouterr().err


def test_a_database_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chat.db").write_bytes(b"no database, " * 100)
    assert main(["list"], lambda _: tmp_path / "chat.db") == 1
    assert capsys.readouterr().err.endswith("The database is damaged.\n")


async def test_the_process_makes_keys_while_the_service_runs(file: Path) -> None:
    async with opened_store(file) as store:
        made = subprocess.run(  # noqa: ASYNC221
            [sys.executable, SERVER, "keys", "--database-url", f"sqlite:///{file}", "add", "web"],
            capture_output=True,
            text=True,
            check=True,
            cwd=file.parent,
        )
        [key] = await store.keys()
    assert key.digest == hashlib.sha256(made.stdout.strip().encode()).hexdigest()
