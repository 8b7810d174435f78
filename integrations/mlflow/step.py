"""MLflow: what a run is trained on, how many of its captions look wrong, and the report, beside the run's metrics."""

import os

import mlflow
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset

from ecif_client import Client

with (
    Client(os.environ["ECIF_URL"], os.environ.get("ECIF_API_KEY")) as ecif,
    mlflow.start_run() as run,  # goes on with the run of MLFLOW_RUN_ID, if there is one
):
    dataset, trusted = ecif.upload(os.environ["TRAIN"]), ecif.upload(os.environ["CLEAN"])
    spec = {"task": "misalignment", "dataset": dataset["id"], "validation": {"dataset": trusted["id"]}}
    job = ecif.wait(ecif.submit(spec, idempotency_key=f"{run.info.run_id}/{dataset['id']}")["id"])

    source = HTTPDatasetSource(f"{ecif.url}/datasets/{dataset['id']}")
    digest = job["dataset_digest"].removeprefix("sha256:")
    described = MetaDataset(source, name=dataset["source"], digest=digest[:36])  # MLflow takes no more
    mlflow.log_input(described, context="training")
    mlflow.set_tags({"ecif.job": job["id"], "ecif.dataset_digest": job["dataset_digest"]})
    counts = job["summary"]["counts"]
    mlflow.log_metrics({"ecif.scored": counts["scored"], "ecif.flagged": counts["flagged"]})
    mlflow.log_text(ecif.report(job["id"]), "ecif/report.html")
