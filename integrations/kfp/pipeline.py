"""Kubeflow Pipelines v2: a component that finds wrong captions, and a pipeline that tries it again when it dies."""

import os

from kfp import dsl

IMAGE = os.environ.get("ECIF_IMAGE", "python-ecif")  # a Python with kfp and ecif-client


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def find_wrong_captions(
    url: str,
    train: str,
    clean: str,
    run: str,
    max_flagged: float,
    report: dsl.Output[dsl.HTML],
    counts: dsl.Output[dsl.Metrics],
) -> str:
    """The id of a finished job: one for each run, however often the task is tried."""
    import os
    from pathlib import Path

    from ecif_client import Client

    with Client(url, os.environ.get("ECIF_API_KEY")) as ecif:
        dataset, trusted = ecif.upload(train), ecif.upload(clean)
        spec = {"task": "misalignment", "dataset": dataset["id"], "validation": {"dataset": trusted["id"]}}
        job = ecif.wait(ecif.submit(spec, idempotency_key=f"{run}/{dataset['id']}")["id"])
        Path(report.path).write_text(ecif.report(job["id"]))
    found = job["summary"]["counts"]
    counts.log_metric("scored", found["scored"])
    counts.log_metric("flagged", found["flagged"])
    if found["flagged"] > max_flagged * found["scored"]:
        raise SystemExit(f"{found['flagged']} of {found['scored']} captions flagged")
    return job["id"]


@dsl.pipeline(name="captions")
def captions(url: str, train: str, clean: str, max_flagged: float = 0.15) -> str:
    found = find_wrong_captions(
        url=url, train=train, clean=clean, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, max_flagged=max_flagged
    )
    found.set_retry(num_retries=3, backoff_duration="10s")
    return found.outputs["Output"]
