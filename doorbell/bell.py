"""Ringing without ever waiting for the broker."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping

from celery import Celery

from doorbell.application import WORK, queue_of
from store.phases import Lane

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 64
"""In each lane: enough to wake every worker of one service; each goes on by itself while there is work."""


class Bell:
    """Sends doorbell messages from a thread of its own.

    The row that asks for work is committed before anybody rings, so a ring that fails is logged and forgotten: the
    sweeper rings again for whatever still waits. A broker that hangs delays this thread and nobody else.
    """

    def __init__(self, application: Celery) -> None:
        self._application = application
        self._wanted: Counter[Lane] = Counter()
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, waiting: Mapping[Lane, int]) -> None:
        """Ask for messages to be sent soon: for so many shards, by lane. Returns at once."""
        with self._condition:
            for lane, count in waiting.items():
                self._wanted[lane] = min(self._wanted[lane] + count, MOST_AT_ONCE)
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
                self._condition.wait_for(lambda: self._wanted.total() or self._closed)
                wanted, self._wanted = self._wanted, Counter()
                if not wanted.total():
                    return
            try:
                for lane in wanted.elements():
                    self._application.send_task(WORK, queue=queue_of(lane), retry=False, ignore_result=True)
            except Exception as error:  # noqa: BLE001  whatever the broker does, the sweeper makes up for it
                logger.warning("doorbell not rung: %s", error)
