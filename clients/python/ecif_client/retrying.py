"""When a request is sent again, and after how long a pause."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tenacity import RetryCallState, retry_if_exception, wait_exponential, wait_random

from ecif_client.errors import IN_PROGRESS, ApiError, ClientError

TRIES = 5
OnRetry = Callable[[ClientError, float], None]
"""Is called before a pause, with what went wrong and the seconds until the next try."""

_LONGEST_PAUSE = 60.0
_IN_PROGRESS_TRIES = 60  # a second apart: as long as the claim of a server that died may last

_backing_off = wait_exponential(multiplier=0.6, max=10.0) + wait_random(0, 0.3)


def policy(tries: int, on_retry: OnRetry | None) -> dict[str, Any]:
    """The arguments of `tenacity.Retrying`, and of its asynchronous twin."""

    def before_sleep(state: RetryCallState) -> None:
        if on_retry is not None:
            on_retry(_error(state), state.upcoming_sleep)

    return {
        "retry": retry_if_exception(lambda error: isinstance(error, ClientError) and error.again),
        "stop": partial(_over, tries),
        "wait": _pause,
        "before_sleep": before_sleep,
        "reraise": True,
    }


def _error(state: RetryCallState) -> ClientError:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, ClientError)  # noqa: S101  nothing else is tried again
    return error


def _over(tries: int, state: RetryCallState) -> bool:
    error = _error(state)
    in_progress = isinstance(error, ApiError) and error.code == IN_PROGRESS
    return state.attempt_number >= (max(tries, _IN_PROGRESS_TRIES) if in_progress and tries > 1 else tries)


def _pause(state: RetryCallState) -> float:
    wanted = _error(state).retry_after
    return _backing_off(state) if wanted is None else min(_LONGEST_PAUSE, wanted)
