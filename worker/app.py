"""The Celery worker: `celery -A worker.app worker`. Its one task looks for work and does one shard of it.

The parent process never imports torch: with the spawn method it only hands out messages, and only its children
compute. They import what they need once, before their first task.
"""

import logging
from functools import cache
from typing import Any

from celery.signals import worker_process_init

from doorbell.application import WORK, celery_application
from doorbell.bell import Bell
from store.settings import get_settings

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")

app = celery_application(get_settings())


@cache
def _place() -> Any:
    from store.blobs import Blobs
    from store.database import Database
    from worker.devices import compute_in_float32
    from worker.work import Workplace

    compute_in_float32()
    settings = get_settings()
    return Workplace(settings, Database.from_settings(settings), Blobs.from_settings(settings))


@cache
def _bell() -> Bell:
    return Bell(app)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _import_before_the_first_task(**_: object) -> None:
    _place()


@app.task(name=WORK)  # type: ignore[untyped-decorator]
def work() -> None:
    """Do one shard, and ring on for those that wait."""
    from worker.work import work_once

    waiting = work_once(_place())
    if waiting:
        _bell().ring(waiting)
