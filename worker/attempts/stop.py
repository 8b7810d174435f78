"""Ending a worker without losing what it is at: its processes are told to begin nothing new, and, when the grace is
nearly over, to hand back what they have.

Celery's warm shutdown waits for tasks for as long as they take; whoever sent SIGTERM kills after a while.
"""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

from billiard.process import active_children

_SIGNAL = signal.SIGUSR2


class HandedBackError(Exception):
    """The process was asked to end: another goes on with the shard."""


class Stop:
    """How often this process was asked to end: once, it begins nothing new; twice, it hands back what it is at."""

    def __init__(self) -> None:
        self._requests = 0

    def listen(self) -> None:
        """Hear what `ask_children` says. Only the main thread may call this."""
        signal.signal(_SIGNAL, self._on_signal)

    @property
    def nothing_new(self) -> bool:
        return self._requests > 0

    def check(self) -> None:
        """Return while there is time.

        Raises:
            HandedBackError: there is none left.
        """
        if self._requests > 1:
            raise HandedBackError

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._requests += 1


def ask_children(grace_seconds: float) -> None:
    """In the parent: tell every pool process now to begin nothing new, and after the grace to hand back."""
    _signal_children()
    timer = threading.Timer(grace_seconds, _signal_children)
    timer.daemon = True
    timer.start()


def _signal_children() -> None:
    for child in active_children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, _SIGNAL)
