"""Runs the job `train` of `assets.py`; after a kill, re-executes that run."""

import os
import sys
from pathlib import Path

os.environ["DAGSTER_HOME"] = str(Path.cwd())
Path("dagster.yaml").write_text("telemetry:\n  enabled: false\n")

import dagster as dg  # noqa: E402
from assets import defs  # noqa: E402


def train() -> dg.JobDefinition:
    return defs.resolve_job_def("train")


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        options = None
        if sys.argv[1] == "again":
            (killed,) = instance.get_runs()
            options = dg.ReexecutionOptions(killed.run_id)
        with dg.execute_job(dg.reconstructable(train), instance, reexecution_options=options) as result:
            (evaluation,) = result.get_asset_check_evaluations()
            events = result.get_asset_materialization_events()
        done = {event.asset_key.to_user_string() for event in events if event.asset_key}
        metadata = {name: entry.value for name, entry in evaluation.metadata.items()}
        print(result.success, evaluation.passed, metadata, done)
        if not (result.success and evaluation.passed and evaluation.blocking and done == {"pairs", "model"}):
            sys.exit("a passed check held up the training")
        if metadata["scored"] != 400 or not metadata["flagged"] or len(metadata["look_at_first"]) != 10:
            sys.exit(f"the check does not hold what the job came to: {metadata}")
