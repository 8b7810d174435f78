"""The Celery application that both sides share: who rings, and who answers."""

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
