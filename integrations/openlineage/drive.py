"""Runs `step.py` with events going into a file, and reads them as the classes of openlineage-python do."""

import json
import os
import runpy
import sys
import uuid
from pathlib import Path

import attr
from openlineage.client.facet_v2 import data_quality_assertions_dataset, data_quality_metrics_input_dataset
from openlineage.client.serde import Serde

EVENTS = Path("events.jsonl").resolve()
os.environ |= {
    "RUN_ID": str(uuid.uuid5(uuid.NAMESPACE_URL, Path.cwd().name)),
    "OPENLINEAGE__TRANSPORT__TYPE": "file",
    "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": str(EVENTS),
    "OPENLINEAGE__TRANSPORT__APPEND": "true",
}


def read_as(kind: type, facet: dict[str, object]) -> object:
    """The facet as its class has it; a field that the class does not know, or lacks, is an error."""
    known = {field.name for field in attr.fields(kind)}
    given = {name: value for name, value in facet.items() if not name.startswith("_")}
    if given.keys() - known:
        sys.exit(f"{kind.__name__} has no {given.keys() - known}")
    return kind(**given)


step = Path(__file__).with_name("step.py")
runpy.run_path(str(step), run_name="__main__")
events = [json.loads(line) for line in EVENTS.read_text().splitlines()]
states = [event["eventType"] for event in events]
print(states)
if states not in (["START", "COMPLETE"], ["START", "START", "COMPLETE"]):
    sys.exit("a run begins and completes")
if {event["run"]["runId"] for event in events} != {os.environ["RUN_ID"]}:
    sys.exit("two runs")
(dataset,) = events[-1]["inputs"]
facets = dataset["inputFacets"]
quality = read_as(data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet, facets["dataQualityMetrics"])
(assertion,) = facets["dataQualityAssertions"]["assertions"]
judged = read_as(data_quality_assertions_dataset.Assertion, assertion)
print(Serde.to_json(judged), Serde.to_json(quality))
if facets["dataQualityMetrics"]["rowCount"] != 400 or not assertion["success"]:
    sys.exit("the facets do not hold what the job came to")
if not dataset["facets"]["version"]["datasetVersion"].startswith("sha256:"):
    sys.exit("the version is not the digest")
