"""Runs `step.py` in a run of MLflow; after a kill, goes on with that run."""

import os
import runpy
import sys
from pathlib import Path

import mlflow

mlflow.set_tracking_uri(f"sqlite:///{Path.cwd()}/mlflow.db")
if sys.argv[1] == "first":
    run = mlflow.MlflowClient().create_run("0")
    Path("run").write_text(run.info.run_id)
os.environ["MLFLOW_RUN_ID"] = Path("run").read_text()
runpy.run_path(str(Path(__file__).with_name("step.py")), run_name="__main__")

(run,) = mlflow.search_runs(["0"], output_format="list")
(entry,) = run.inputs.dataset_inputs
print(run.info.status, run.data.metrics, entry.dataset.digest, run.data.tags["ecif.dataset_digest"])
if run.info.status != "FINISHED" or run.data.metrics["ecif.scored"] != 400 or not run.data.metrics["ecif.flagged"]:
    sys.exit("the run does not hold what the job came to")
if len(entry.dataset.digest) != 36 or entry.dataset.digest not in run.data.tags["ecif.dataset_digest"]:
    sys.exit("the run's dataset is another")
if "<html" not in mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/ecif/report.html"):
    sys.exit("the report is no page")
