"""The version of the specification is raised with every change to its fields."""

import hashlib
import json
from typing import Any

from store.specification import SPECIFICATION_VERSION, JobSpec, version_of

# Each version with the digest of its fields. A changed digest is a changed specification: raise the version, so that
# workers of the release before leave such jobs to newer ones, and add a line.
_FIELDS = {2: "50461e503afa4d7a", 3: "68f1859f285e1aa9"}


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


def test_the_version_belongs_to_the_fields() -> None:
    schema = json.dumps(_described(JobSpec.model_json_schema()), sort_keys=True)
    digest = hashlib.sha256(schema.encode()).hexdigest()[:16]
    assert _FIELDS[SPECIFICATION_VERSION] == digest
