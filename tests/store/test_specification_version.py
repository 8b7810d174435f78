"""The version of the specification is raised with every change to its fields."""

import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from store.specification import SPECIFICATION_VERSION, JobSpec, version_of

# Each version with the digest of its fields. A changed digest is a changed specification: raise the version, so that
# workers of the release before leave such jobs to newer ones, and add a line.
_FIELDS = {
    2: "50461e503afa4d7a",
    3: "68f1859f285e1aa9",
    4: "b87058558f869b1a",
    5: "f568f4f913feb769",
    6: "71ea7319877e2a9e",
    7: "d27b332f5244ad2b",
    8: "1c353d6687b633c4",
    9: "7f3f8c9ef8b52db2",
    10: "2edd4fb4245e18f7",
    11: "033fa44b0dc110d2",
}


def _described(schema: Any) -> Any:
    """The schema without its words for people, which may change at any time."""
    if isinstance(schema, dict):
        return {key: _described(value) for key, value in schema.items() if key not in ("description", "title")}
    if isinstance(schema, list):
        return [_described(value) for value in schema]
    return schema


def test_a_job_is_of_the_newest_version_that_it_uses() -> None:
    assert version_of({"methods": ["ecif"]}) == 1
    assert version_of({"methods": ["ecif"], "ttl": 5}) == 2
    assert version_of({"methods": ["ecif", "leave_one_out"], "ttl": 5}) == 3
    assert version_of({"methods": ["tracin"], "model": {"id": "model_1", "checkpoints": ["model_2", "model_3"]}}) == 5
    assert version_of({"methods": ["tracin"], "model": {"id": "model_1"}}) == 1
    assert version_of({"methods": ["neighbour_influence"]}) == 7
    assert version_of({"methods": ["magic", "ecif"]}) == 11
    assert version_of({"methods": ["ecif", "margin"]}) == version_of({"methods": ["contrast_loss"]}) == 4


def test_a_confidence_as_by_default_is_nothing_that_an_older_worker_would_have_to_know() -> None:
    spec = {"task": "misalignment", "dataset": "ds_1"}
    usual = JobSpec.model_validate({**spec, "flag": {"confidence": 0.9, "false_discovery_rate": 0.1}})
    kept = usual.model_dump(mode="json")
    assert (kept["flag"], version_of(kept)) == ({"false_discovery_rate": 0.1}, 1)
    assert JobSpec.model_validate(kept).flag.confidence == 0.9
    surer = JobSpec.model_validate({**spec, "flag": {"confidence": 0.99}}).model_dump(mode="json")
    assert (surer["flag"], version_of(surer)) == ({"false_discovery_rate": 0.05, "confidence": 0.99}, 4)
    assert JobSpec.model_validate(surer).flag.confidence == 0.99
    for wrong in (0, 1):
        with pytest.raises(ValidationError, match="confidence"):
            JobSpec.model_validate({**spec, "flag": {"confidence": wrong}})


def test_a_loss_that_is_the_models_own_is_nothing_that_an_older_worker_would_have_to_know() -> None:
    spec = {"task": "misalignment", "dataset": "ds_1"}
    kept = JobSpec.model_validate({**spec, "objective": {"loss": None, "logit_bias": None}}).model_dump(mode="json")
    assert (kept["objective"].keys() & {"loss", "logit_bias"}, version_of(kept)) == (set(), 1)
    sigmoid = {"loss": "sigmoid", "temperature": 0.0085, "logit_bias": -12.9}
    kept = JobSpec.model_validate({**spec, "objective": sigmoid}).model_dump(mode="json")
    assert (sigmoid.items() <= kept["objective"].items(), version_of(kept)) == (True, 8)
    assert JobSpec.model_validate(kept).objective.logit_bias == -12.9


def test_a_job_whose_clean_pairs_calibrate_within_groups_is_for_workers_that_know_of_it() -> None:
    spec = {"task": "misalignment", "dataset": "ds_1", "validation": {"dataset": "ds_2"}}
    assert version_of(JobSpec.model_validate(spec).model_dump(mode="json")) == 1
    grouped = JobSpec.model_validate({**spec, "flag": {"by": "label"}}).model_dump(mode="json")
    assert (grouped["flag"], version_of(grouped)) == ({"false_discovery_rate": 0.05, "by": "label"}, 6)


def test_a_job_that_calibrates_by_marks_is_for_workers_that_know_of_them() -> None:
    spec = {"task": "misalignment", "dataset": "ds_1", "validation": {"marks": "job_1"}}
    assert version_of(JobSpec.model_validate(spec).model_dump(mode="json")) == 10


def test_the_version_belongs_to_the_fields() -> None:
    schema = json.dumps(_described(JobSpec.model_json_schema()), sort_keys=True)
    digest = hashlib.sha256(schema.encode()).hexdigest()[:16]
    assert _FIELDS[SPECIFICATION_VERSION] == digest
