"""The Celery worker: `celery -A worker.app worker`. Its one task does shards for as long as there are any.

The parent process never imports torch: with the spawn method it only hands out messages, and only its children
compute. They import what they need once, before their first task.
"""

import logging
import time
from functools import cache
from pathlib import Path
from typing import Any

from celery.signals import worker_process_init, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from doorbell.bell import SESSION_SECONDS, WORK, Bell, celery_application
from store.database import Database
from store.settings import get_settings
from store.shards import NAME_LENGTH
from worker.attempts import follow_up, presence
from worker.attempts.stop import Stop, ask_children

logger = logging.getLogger(__name__)

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")

app = celery_application(get_settings())
_stop = Stop()


@cache
def _name() -> str:
    return presence.appear(_lock_files())


@cache
def _database() -> Database:
    return Database.from_settings(get_settings(), name=_name()[-NAME_LENGTH:])


@cache
def _place() -> Any:
    from store.blobs import Blobs
    from worker.analysis.models import compute_in_float32
    from worker.attempts.attempt import Workplace

    compute_in_float32()
    settings = get_settings()
    return Workplace(settings, _database(), Blobs.from_settings(settings), _stop, _name())


@cache
def _bell() -> Bell:
    return Bell(app)


def _lock_files() -> Path:
    return get_settings().ecif_home / "workers"


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _begin(**_: object) -> None:
    """A new process often replaces one that died: first hand on what that one held, then import what takes long."""
    _stop.listen()
    _take_over()
    _place()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _end(**_: object) -> None:
    ask_children(get_settings().ecif_grace_seconds)


def _take_over() -> None:
    try:
        taken_back = follow_up.take_over(_lock_files(), _database(), get_settings())
    except (SQLAlchemyError, OSError) as error:
        logger.warning("leases of dead processes are left to run out: %s", error)
    else:
        _bell().ring(taken_back)


@app.task(name=WORK)  # type: ignore[untyped-decorator]
def work() -> None:
    """Do shards for as long as there are any, and ring for other workers.

    Whoever is at work needs no bell to go on, so that a broker that is away holds up only those who are idle.
    """
    from worker.attempts.attempt import work_once

    ends_at = time.monotonic() + SESSION_SECONDS
    while (opened := work_once(_place())) is not None:
        _bell().ring(opened)
        if time.monotonic() > ends_at:
            _bell().ring(dict.fromkeys(get_settings().lanes, 1))
            return
