"""What an exception of an attempt is blamed on: the shard itself, its memory, or what it depends on."""

import errno
from collections.abc import Iterator

import httpx
import psycopg
from obstore.exceptions import BaseError as BlobStoreError
from obstore.exceptions import InvalidPathError, NotFoundError, NotSupportedError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from store.states import Setback

# SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html: whole classes, then single codes.
_DATABASE = {
    "08": "the connection to the database was lost",
    "53": "the database has no room or no connection left",
    "57": "the database ended the statement or is restarting",
    "58": "the database had an error of its disk or system",
    "25006": "the database takes no writes at the moment",
    "25P03": "the database ended a transaction that had waited too long",
    "25P04": "the database ended a transaction that had taken too long",
    "40001": "the transaction collided with another",
    "40P01": "the transaction and another waited for each other",
    "55P03": "a lock was not to be had in time",
}
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_SYSTEM = {errno.EMFILE, errno.ENFILE, errno.EIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT}
_LONGEST_PAUSE_SECONDS = 60.0


def setback_of(error: BaseException) -> Setback:
    """What an attempt that ended in this exception is counted as."""
    for cause in _chain(error):
        if _of_database(cause) or _of_system(cause):
            return Setback.HINDERED
        if _of_memory(cause):
            return Setback.EXHAUSTED
    return Setback.RAISED


def for_people(error: BaseException) -> str:
    """The exception in words for the user of a job: no statement, no parameter, no allocator's message."""
    for cause in _chain(error):
        if reason := _of_database(cause) or _of_system(cause):
            return reason
        if _of_memory(cause):
            return "it needs more memory than there is"
    if isinstance(error, httpx.TransportError):
        return f"the server that it is fetched from cannot be reached, or breaks off ({error or type(error).__name__})"
    if isinstance(error, SQLAlchemyError | psycopg.Error):
        return f"{type(error).__name__}, see the worker's log"
    return f"{type(error).__name__}: {error}"[:2000]


def pause_seconds(times: int) -> float:
    """How long to wait before an attempt that was held up `times` times in a row is made again."""
    return float(min(2.0 ** min(times, 10), _LONGEST_PAUSE_SECONDS))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _of_database(error: BaseException) -> str | None:
    if isinstance(error, PoolTimeoutError):
        return "the database gave no connection in time"
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, psycopg.Error):
        return None
    code = original.sqlstate
    if code is None:  # the server said nothing: the connection broke, or was never made
        return _DATABASE["08"] if isinstance(original, psycopg.OperationalError) else None
    return _DATABASE.get(code) or _DATABASE.get(code[:2])


def _of_system(error: BaseException) -> str | None:
    if isinstance(error, BlobStoreError) and not isinstance(
        error, InvalidPathError | NotFoundError | NotSupportedError
    ):
        full = "No space left" in str(error)  # obstore has no code for it
        return "the disk is full" if full else "the store of files did not do what it was asked"
    if isinstance(error, OSError):
        if error.errno in _FULL_DISK:
            return "the disk is full"
        if error.errno in _SYSTEM:
            return f"the system failed: {errno.errorcode[error.errno]}"
    return None


def _of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""In a RuntimeError of torch: of the host, by its allocators; of a GPU, by its libraries."""
