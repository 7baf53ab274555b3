import json
import logging
import logging.config
from collections.abc import Iterator
from typing import Any

import pytest

from handlers.context import set_request_id
from handlers.logs import log_config
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


def test_traceback_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(log_config("INFO"))
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        logging.getLogger("chat").exception("broke")
    [line] = lines(capsys)
    assert "ZeroDivisionError: by zero" in line["exc_info"]


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
