"""`make serve`: the stack in the foreground, until somebody asks for its end."""

import os
import signal
import sys
import threading
from types import FrameType

from standalone.errors import StopRequestedError
from standalone.services import worker_processes
from standalone.stack import Stack
from store.settings import Settings

_LOOK_SECONDS = 0.5


class Request:
    """Whether the end was asked for: by a signal, or because the process that started this one is gone.

    A second signal means that nothing is waited for any more.
    """

    def __init__(self, *, with_parent: bool) -> None:
        self._parent = os.getppid() if with_parent else None
        self._stop = threading.Event()
        self._hurry = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup wants that
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def stop(self) -> bool:
        if self._parent is not None and os.getppid() != self._parent:
            self._stop.set()
        return self._stop.is_set()

    def hurry(self) -> bool:
        return self._hurry.is_set()

    def wait(self) -> None:
        """Return when the end is asked for."""
        while not self.stop():
            self._stop.wait(_LOOK_SECONDS)


def serve(settings: Settings, port: int, *, with_parent: bool) -> None:
    """Run everything on this machine until a signal comes.

    Raises:
        StandaloneError: it cannot run here; the message says why.
        ValueError: `ECIF_WORKERS` is not a number.
    """
    request = Request(with_parent=with_parent)
    stack = Stack(
        settings.ecif_home,
        port,
        worker_processes(),
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        blob_url=settings.blob_url,
        say=_say,
        stop_requested=request.stop,
        hurry=request.hurry,
    )
    _say(f"starting, with data in {settings.ecif_home}")
    try:
        with stack:
            _say(_welcome(stack))
            request.wait()
            _say("ending (once more to end at once)")
    except StopRequestedError:
        pass
    _say("ended")


def _welcome(stack: Stack) -> str:
    postgres = "its own PostgreSQL" if "postgres" in stack.processes else "the PostgreSQL of DATABASE_URL"
    redis = "its own Redis" if "redis" in stack.processes else "the Redis of REDIS_URL"
    return f"""
  pages   {stack.url}/
  API     {stack.url}
  docs    {stack.url}/docs
  data    {stack.home.path}, with {postgres} and {redis}
  logs    {stack.home.path / "logs"}
  worker  {stack.workers} process{"es" if stack.workers > 1 else ""}

  Open to every user of this machine, without keys; reachable from this machine only. Ctrl-C ends it.
"""


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
