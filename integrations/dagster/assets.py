"""Dagster: a blocking asset check, so that nothing is trained on a dataset with too many wrong captions."""

import os

import dagster as dg

from ecif_client import Client

MAX_FLAGGED = float(os.environ.get("MAX_FLAGGED", "0.15"))


@dg.asset
def pairs() -> dg.MaterializeResult:
    """Image-text pairs; here a file that is there already."""
    return dg.MaterializeResult(metadata={"path": dg.MetadataValue.path(os.environ["TRAIN"])})


@dg.asset_check(asset=pairs, blocking=True)
def captions_belong(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """One job for each run, which its re-executions share."""
    key = f"{context.run.root_run_id or context.run.run_id}/captions_belong"
    with Client(os.environ["ECIF_URL"], os.environ.get("ECIF_API_KEY")) as ecif:
        dataset, trusted = ecif.upload(os.environ["TRAIN"]), ecif.upload(os.environ["CLEAN"])
        spec = {"task": "misalignment", "dataset": dataset["id"], "validation": {"dataset": trusted["id"]}}
        job = ecif.wait(ecif.submit(spec, idempotency_key=key)["id"])
        worst = [row["key"] for _, row in zip(range(10), ecif.results(job["id"], flagged=True), strict=False)]
        counts = job["summary"]["counts"]
        return dg.AssetCheckResult(
            passed=counts["flagged"] <= MAX_FLAGGED * counts["scored"],
            metadata={
                "flagged": counts["flagged"],
                "scored": counts["scored"],
                "digest": job["dataset_digest"],
                "look_at_first": dg.MetadataValue.json(worst),
                "report": dg.MetadataValue.url(f"{ecif.url}/jobs/{job['id']}/report"),
            },
        )


@dg.asset(deps=[pairs])
def model() -> None:
    """Training, which the check holds up."""


defs = dg.Definitions(
    assets=[pairs, model],
    asset_checks=[captions_belong],
    jobs=[dg.define_asset_job("train", [pairs, model])],
)
