"""The version of the specification is raised with every change to its fields."""

import hashlib
import json
from typing import Any

from store.specification import SPECIFICATION_VERSION, JobSpec

# Each version with the digest of its fields. A changed digest is a changed specification: raise the version, so that
# workers of the release before leave such jobs to newer ones, and add a line.
_FIELDS = {2: "50461e503afa4d7a"}


def _described(schema: Any) -> Any:
    """The schema without its words for people, which may change at any time."""
    if isinstance(schema, dict):
        return {key: _described(value) for key, value in schema.items() if key not in ("description", "title")}
    if isinstance(schema, list):
        return [_described(value) for value in schema]
    return schema


def test_the_version_belongs_to_the_fields() -> None:
    schema = json.dumps(_described(JobSpec.model_json_schema()), sort_keys=True)
    digest = hashlib.sha256(schema.encode()).hexdigest()[:16]
    assert _FIELDS[SPECIFICATION_VERSION] == digest
