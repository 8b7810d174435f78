"""Ringing without ever waiting for the broker."""

import logging
import threading

from celery import Celery

from doorbell.application import WORK

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 64
"""Enough to wake every worker of one service; each worker rings on while there is work."""


class Bell:
    """Sends doorbell messages from a thread of its own.

    The row that asks for work is committed before anybody rings, so a ring that fails is logged and forgotten: the
    sweeper rings again for whatever still waits. A broker that hangs delays this thread and nobody else.
    """

    def __init__(self, application: Celery) -> None:
        self._application = application
        self._wanted = 0
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, times: int = 1) -> None:
        """Ask for `times` messages to be sent soon. Returns at once."""
        with self._condition:
            self._wanted = min(self._wanted + times, _MOST_AT_ONCE)
            self._condition.notify()

    def close(self) -> None:
        """Stop; a ring that is being sent has half a second more."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join(timeout=0.5)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._wanted or self._closed)
                times, self._wanted = self._wanted, 0
                if not times:
                    return
            try:
                for _ in range(times):
                    self._application.send_task(WORK, retry=False, ignore_result=True)
            except Exception as error:  # noqa: BLE001  whatever the broker does, the sweeper makes up for it
                logger.warning("doorbell not rung: %s", error)
