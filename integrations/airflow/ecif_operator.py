"""Airflow 3: a deferrable operator that finds wrong captions, and the trigger that waits without a worker. This file
lies beside the dags, as the triggerer imports it too."""

import os
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from ecif_client import AsyncClient, Client, JobFailedError

SERVICE = os.environ["ECIF_URL"], os.environ.get("ECIF_API_KEY")


class JobEnded(BaseTrigger):
    """Fires when a job has ended, with its id and, if it did not succeed, why. It may be started anew at any time."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self.job = job

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.JobEnded", {"job": self.job}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        error = None
        async with AsyncClient(*SERVICE) as ecif:
            try:
                await ecif.wait(self.job)
            except JobFailedError as failed:
                error = str(failed)
        yield TriggerEvent({"job": self.job, "error": error})


class FindWrongCaptions(BaseOperator):
    """Returns the id of a finished job; fails where more than `max_flagged` of the captions look wrong. All tries of a
    task instance share one job."""

    template_fields = ("train", "clean")

    def __init__(self, *, train: str, clean: str, max_flagged: float = 0.15, **options: Any) -> None:
        super().__init__(**options)
        self.train, self.clean, self.max_flagged = train, clean, max_flagged

    def execute(self, context: Context) -> None:
        ti = context["ti"]
        key = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}"
        with Client(*SERVICE) as ecif:
            dataset, trusted = ecif.upload(self.train), ecif.upload(self.clean)
            spec = {"task": "misalignment", "dataset": dataset["id"], "validation": {"dataset": trusted["id"]}}
            job = ecif.submit(spec, idempotency_key=key)
        self.defer(trigger=JobEnded(job["id"]), method_name="judge")

    def judge(self, context: Context, event: dict[str, Any]) -> str:
        if event["error"]:
            raise AirflowFailException(event["error"])  # which another try would not change
        with Client(*SERVICE) as ecif:
            counts = ecif.job(event["job"])["summary"]["counts"]
        if counts["flagged"] > self.max_flagged * counts["scored"]:
            raise AirflowFailException(f"{counts['flagged']} of {counts['scored']} captions flagged")
        return event["job"]
