"""What goes wrong with PostgreSQL, and what it means."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from chat.errors import StoreCorruptError, StoreUnavailableError

# https://www.postgresql.org/docs/current/errcodes-appendix.html: two characters are a whole class. No connection, no
# such database or right, too little of something, the operator's or a timeout's doing, the server's disk.
_UNAVAILABLE = ("08", "25006", "28", "3D", "40", "42501", "53", "55P03", "57", "58")
_DAMAGED = ("XX001", "XX002")
_CUT_OFF = ("08", "25P03", "57P")
COLLIDED = ("23505", "40001", "40P01")
_POOLED = ("26000", "42P05")

BROKEN = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What asyncpg says when its connection was lost, besides the server's own words."""

logger = logging.getLogger(__name__)


class LostError(StoreUnavailableError):
    """The connection was lost, or there was none. Nothing was committed."""


class DoubtfulError(LostError):
    """It was lost during the commit, which may be one or not. ``result`` is what it brought if so."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result


class FencedError(Exception):
    """This owner may not write, or not with this fence."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn asyncpg's errors into the domain's; what is our own mistake in SQL stays what it is.

    Of an error only the first line is for the log: the details behind it quote rows.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        state = error.sqlstate or ""
        if state in COLLIDED:
            raise
        if state in _POOLED:
            logger.exception(
                "postgres: a pooler in transaction mode is in between. DATABASE_URL has to say ?statement_cache_size=0."
            )
            raise StoreUnavailableError from error
        if state in _DAMAGED:
            logger.warning("postgres: %s (%s)", error.message, state)
            raise StoreCorruptError from error
        if state.startswith(_CUT_OFF):
            logger.warning("postgres: %s (%s)", error.message, state)
            raise LostError from error
        if state.startswith(_UNAVAILABLE):
            logger.warning("postgres: %s (%s)", error.message, state)
            raise StoreUnavailableError from error
        raise
    except (*BROKEN, TimeoutError) as error:
        if isinstance(error, ValueError) and not isinstance(error, asyncpg.exceptions.ClientConfigurationError):
            raise  # a value that no column can hold
        logger.warning("postgres: %s", str(error) or type(error).__name__)
        raise LostError from error


@contextmanager
def doubtful(result: object) -> Iterator[None]:
    """While a commit is under way: a connection that is lost leaves open whether it was one."""
    try:
        yield
    except (asyncpg.PostgresError, *BROKEN) as error:
        if isinstance(error, asyncpg.PostgresError) and not (error.sqlstate or "").startswith(_CUT_OFF):
            raise
        if isinstance(error, ValueError):
            raise  # a value that no column can hold: it was not sent
        logger.warning("postgres: the connection was lost during a commit: %s", getattr(error, "message", error))
        raise DoubtfulError(result) from error
