"""OpenLineage: how many captions of a dataset look wrong, as data-quality facets of the run that read it."""

import os
from datetime import UTC, datetime

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    data_quality_assertions_dataset as assertions,
)
from openlineage.client.facet_v2 import (
    data_quality_metrics_input_dataset as metrics,
)
from openlineage.client.facet_v2 import (
    dataset_version_dataset as version,
)
from openlineage.client.facet_v2 import (
    error_message_run,
)

from ecif_client import Client, JobFailedError

RUN = os.environ["RUN_ID"]  # a UUID of your scheduler's, which all tries share
MAX_FLAGGED = float(os.environ.get("MAX_FLAGGED", "0.15"))
PRODUCER = "https://arxiv.org/abs/2411.11667"
lineage = OpenLineageClient()  # where events go is in openlineage.yml, or in OPENLINEAGE__TRANSPORT__…


def say(state: RunState, inputs: list[InputDataset], error: str | None = None) -> None:
    facets = {"errorMessage": error_message_run.ErrorMessageRunFacet(error, "PYTHON")} if error else {}
    event = RunEvent(
        eventType=state,
        eventTime=datetime.now(UTC).isoformat(),
        run=Run(runId=RUN, facets=facets),
        job=Job(namespace="ecif", name="find_wrong_captions"),
        producer=PRODUCER,
        inputs=inputs,
    )
    lineage.emit(event)


with Client(os.environ["ECIF_URL"], os.environ.get("ECIF_API_KEY")) as ecif:
    dataset, trusted = ecif.upload(os.environ["TRAIN"]), ecif.upload(os.environ["CLEAN"])
    spec = {"task": "misalignment", "dataset": dataset["id"], "validation": {"dataset": trusted["id"]}}
    job = ecif.submit(spec, idempotency_key=f"{RUN}/find_wrong_captions")
    read = {"version": version.DatasetVersionDatasetFacet(job["dataset_digest"])}
    say(RunState.START, [InputDataset(ecif.url, dataset["id"], facets=read)])
    try:
        job = ecif.wait(job["id"])
    except JobFailedError as failed:
        say(RunState.FAIL, [InputDataset(ecif.url, dataset["id"], facets=read)], str(failed))
        raise
    counts = job["summary"]["counts"]
    worst = next(iter(ecif.results(job["id"], limit=1)))["suspicion"]

share = counts["flagged"] / counts["scored"]
judged = assertions.Assertion(
    assertion="custom",
    name="captions_belong_to_their_images",
    column="caption",
    success=share <= MAX_FLAGGED,
    severity="error",
    expected=f"at most {MAX_FLAGGED:.0%} flagged",
    actual=f"{counts['flagged']} of {counts['scored']} flagged ({share:.1%})",
)
quality = {
    "dataQualityAssertions": assertions.DataQualityAssertionsDatasetFacet([judged]),
    "dataQualityMetrics": metrics.DataQualityMetricsInputDatasetFacet(
        rowCount=counts["pairs"],
        columnMetrics={"suspicion": metrics.ColumnMetrics(count=counts["scored"], max=worst)},
    ),
}
say(RunState.COMPLETE, [InputDataset(ecif.url, dataset["id"], facets=read, inputFacets=quality)])
