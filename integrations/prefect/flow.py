"""Prefect: find wrong captions in a task that may die and be tried again."""

import os

from prefect import flow, runtime, task
from prefect.artifacts import create_markdown_artifact

from ecif_client import Client


def connect() -> Client:
    return Client(os.environ["ECIF_URL"], os.environ.get("ECIF_API_KEY"))


@task(retries=3, retry_delay_seconds=[10, 60, 300])
def find_wrong_captions(train: str, clean: str) -> str:
    """The id of a finished job: one for each flow run and dataset, however often the task or the flow is tried."""
    with connect() as ecif:
        dataset, trusted = ecif.upload(train), ecif.upload(clean)
        spec = {"task": "misalignment", "dataset": dataset["id"], "validation": {"dataset": trusted["id"]}}
        job = ecif.submit(spec, idempotency_key=f"{runtime.flow_run.id}/{dataset['id']}")
        counts = ecif.wait(job["id"])["summary"]["counts"]
        create_markdown_artifact(f"{counts['flagged']} of {counts['scored']} captions flagged", key="ecif")
        return job["id"]


@task(retries=3, retry_delay_seconds=[10, 60, 300])
def export_clean(job_id: str, into: str) -> None:
    """Write the pairs that were not flagged. What came before an interruption is not sent again."""
    with connect() as ecif:
        ecif.export(job_id, into, format="jsonl", keep="clean")


@flow
def curate(train: str, clean: str, into: str) -> None:
    export_clean(find_wrong_captions(train, clean), into)
