"""The Celery application, with a queue for each lane, and the bell that rings them."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping

from celery import Celery
from kombu.entity import Queue

from store.phases import Lane
from store.settings import Settings

WORK = "ecif.work"
"""The one task: claim a shard and do it, for as long as there are any. It takes no arguments."""

SESSION_SECONDS = 600
"""A task that has worked for so long begins no other shard: its limit is for all that it does."""

SHARD_HARD_LIMIT_SECONDS = 3600
_FETCH_MARGIN_SECONDS = 600


def queue_of(lane: Lane) -> str:
    """The broker's queue of a lane. That of `compute` has the name that the release before knew."""
    return "ecif" if lane is Lane.COMPUTE else f"ecif.{lane}"


def celery_application(settings: Settings) -> Celery:
    """Make the application for these settings; connects to nothing yet. A worker hears the lanes of its settings.

    Raises:
        ValueError: `REDIS_URL` is not set.
    """
    if not settings.redis_url:
        raise ValueError("REDIS_URL is not set: name a Redis, or run `make serve`, which brings its own")
    shard_seconds = max(SHARD_HARD_LIMIT_SECONDS, round(settings.ecif_fetch_seconds) + _FETCH_MARGIN_SECONDS)
    application = Celery("ecif", broker=settings.redis_url)
    application.conf.update(
        task_ignore_result=True,
        task_default_queue=queue_of(Lane.COMPUTE),
        task_queues=[Queue(queue_of(lane)) for lane in settings.lanes],  # type: ignore[no-untyped-call]
        task_serializer="json",
        accept_content=["json"],
        # The shard row holds the claim, so a message is acknowledged when it is taken, not when the work is done.
        task_acks_late=False,
        task_time_limit=SESSION_SECONDS + shard_seconds,
        # CUDA and fork do not mix; a spawned child imports torch, which takes longer than the default 4 s.
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=180,
        # A busy worker must not sit on the bell of an idle one.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        # A broker that is away at the start or later is waited for, without end.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 2 * (SESSION_SECONDS + shard_seconds),
            "socket_timeout": 2,
            "socket_connect_timeout": 2,
            "retry_on_timeout": False,
            # A ring that cannot be sent is not waited for: the sweeper rings again.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
    )
    return application


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
