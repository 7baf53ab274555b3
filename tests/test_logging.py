import asyncio
import json
import logging
import logging.config
from collections.abc import Iterator
from typing import Any

import pytest

from handlers.context import set_request_id
from handlers.logs import log_config, log_loop_errors
from tests.patience import soon
from tests.serving import logging_left_alone


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with logging_left_alone():
        yield


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_line_is_json_with_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(log_config("INFO"))
    set_request_id("req_1")
    logging.getLogger("chat.runner").info("run %s", "ended\n☃", extra={"run_id": "run_1"})
    [line] = lines(capsys)
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "logger": "chat.runner",
        "message": "run ended\n☃",
        "run_id": "run_1",
        "request_id": "req_1",
    }


class Named(Exception):  # noqa: N818
    sqlstate = "23514"


def test_exception_is_told_where_it_was_raised_and_without_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(log_config("INFO"))
    try:
        try:
            raise OSError(28, "my secret", "my secret")
        except OSError as error:
            raise ExceptionGroup("my secret", [Named("my secret"), KeyError("my secret")]) from error
    except ExceptionGroup:
        logging.getLogger("chat").exception("broke")
    logging.getLogger("chat").error("nothing broke", exc_info=True)
    broke, nothing = lines(capsys)
    assert "my secret" not in str(broke["exc_info"]).replace('OSError(28, "my secret", "my secret")', "").replace(
        'ExceptionGroup("my secret", [Named("my secret"), KeyError("my secret")])', ""
    )
    told = [line for line in broke["exc_info"].splitlines() if line and not line.startswith(" ")]
    assert told == [
        "OSError 28",
        "then",
        "tests.test_logging.Named 23514",
        "among",
        "KeyError",
        "among",
        "ExceptionGroup",
    ]
    assert broke["exc_info"].count('test_logging.py", line ') == 2
    assert nothing.get("exc_info", "") == ""


def test_context_that_was_put_away_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(log_config("INFO"))
    for cause in (None, ZeroDivisionError()):
        try:
            try:
                raise KeyError
            except KeyError:
                raise ValueError from cause
        except ValueError:
            logging.getLogger("chat").exception("broke")
    assert not [line for line in lines(capsys) if "KeyError\n" in line["exc_info"].replace("raise KeyError\n", "")]


async def test_loop_tells_of_a_task_that_failed_without_what_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(log_config("INFO"))
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_errors)
    told = asyncio.Event()

    def broken(secret: str) -> None:
        loop.call_soon(told.set)
        raise ValueError(secret)

    loop.call_soon(broken, "my secret")
    await soon(told.wait())
    loop.set_exception_handler(None)
    [line] = lines(capsys)
    assert line["message"].startswith("Exception in callback ")
    assert line["exc_info"].endswith("\nValueError")
    assert "my secret" not in repr(line)


@pytest.mark.parametrize(("level", "count"), [("DEBUG", 3), ("INFO", 2), ("ERROR", 1)])
def test_level_is_the_least_that_is_logged(capsys: pytest.CaptureFixture[str], level: str, count: int) -> None:
    logging.config.dictConfig(log_config(level))
    logger = logging.getLogger("chat")
    logger.debug("a")
    logger.info("b")
    logger.error("c")
    assert len(lines(capsys)) == count


@pytest.mark.parametrize(
    "name", ["sse_starlette.sse", "aiosqlite", "openai._base_client", "httpx2", "aiohttp.client", "asyncio"]
)
def test_libraries_that_write_what_is_said_are_kept_from_it(capsys: pytest.CaptureFixture[str], name: str) -> None:
    logging.config.dictConfig(log_config("DEBUG"))
    logging.getLogger(name).debug("chunk: my secret")
    logging.getLogger(name).info("sent: my secret")
    logging.getLogger(name).warning("something is wrong")
    assert [line["message"] for line in lines(capsys)] == ["something is wrong"]


def test_libraries_say_nothing_at_debug(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(log_config("DEBUG"))
    for name in ("one.that.comes.later", "uvicorn.error", "asyncpg"):
        logging.getLogger(name).debug("my secret")
        logging.getLogger(name).info("up")
    assert [line["message"] for line in lines(capsys)] == ["up"] * 3


def test_server_logs_as_everybody_else(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(log_config("INFO"))
    logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "\x1b[1mStarted\x1b[0m"})
    logging.getLogger("uvicorn.access").info("GET /chat?message=my%20secret")
    [line] = lines(capsys)
    assert (line["message"], "color_message" in line) == ("Started", False)


def test_configuration_can_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # the server does it, and each worker once more
        logging.config.dictConfig(log_config("INFO"))
    logging.getLogger("chat").info("once")
    assert len(lines(capsys)) == 1
