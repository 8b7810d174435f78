"""Waiting for a child to be up, for a bounded time."""

import time
from collections.abc import Callable

from standalone.child import Child
from standalone.errors import DidNotStartError, StopRequestedError

_POLL_SECONDS = 0.03


def wait_until(
    up: Callable[[], bool],
    child: Child,
    seconds: float,
    *,
    may_die: bool = False,
    stop_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Return once `up()`. A child that `may_die` is started again by somebody else.

    Raises:
        DidNotStartError: the child ended, or `seconds` have passed; holds the end of its log.
        StopRequestedError: somebody wants no more of it.
    """
    deadline = time.monotonic() + seconds
    while not up():
        if stop_requested():
            raise StopRequestedError("stopped while starting")
        if not (child.alive or may_die):
            what = f"ended with status {child.returncode}"
        elif time.monotonic() > deadline:
            what = f"did not come up within {seconds:.0f} s"
        else:
            time.sleep(_POLL_SECONDS)
            continue
        raise DidNotStartError(child.name, what, child.command.log, child.tail())
