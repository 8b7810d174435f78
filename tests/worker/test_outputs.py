"""What phases leave for each other, as workers of this release and of the one before write and read it."""

import math
from typing import Any

import pytest

from worker.outputs import (
    BatchRange,
    CurvatureOutput,
    IndexOutput,
    IngestOutput,
    JoinOutput,
    Output,
    PlacedPart,
    ReadRange,
    SelfInfluenceMethod,
    WrittenPart,
)

# As the release before has written it.
LEFT: dict[type[Output], dict[str, Any]] = {
    IndexOutput: {
        "shards": [
            {"listing": "datasets/ds/passing/index-0.1/000000", "pairs": 3},
            {"first": 0, "last": 4, "pairs": 4},
        ],
        "format": "webdataset",
        "kind": "images",
        "about": {"repeated_keys": 0},
        "warnings": [],
    },
    IngestOutput: {
        "parts": [{"blob": None, "found": "datasets/ds/passing/ingest-0.1/000000", "items": 2, "count": 0}],
        "rejected": 2,
        "first_reason": "it has no caption",
        "width": None,
        "tally": {
            "rejected": {"no_caption": 2},
            "captions": 2,
            "characters": 9,
            "longest": 5,
            "further_captions": 0,
            "_labels": {"cat": 2},
        },
        "fingerprints": "datasets/ds/passing/ingest-0.1/fingerprints",
        "codes": {},
    },
    JoinOutput: {
        "ranges": [[{"found": "blob", "items": 2, "position": 0, "row": 0, "part": 0}]],
        "pairs": 2,
        "rejected": 0,
        "first_reason": None,
        "format": "npy",
        "kind": "embeddings",
        "width": 8,
        "warnings": [],
        "summary": {},
    },
    CurvatureOutput: {
        "kept": "jobs/job/curvature-0.1/kept.safetensors",
        "self_influence": {"method": "exact", "probes": 0},
        "parameters": 32,
        "objective": 1.5,
        "gradient_norm": 0.5,
        "decrement_bound": None,
        "curvature": "gauss_newton",
        "damping": 0.0,
        "damping_reason": "none is needed",
        "iterations": 3,
        "relative_residual": 1e-4,
        "converged": True,
        "eigenvalue_range": None,
    },
}


@pytest.mark.parametrize("kind", LEFT, ids=lambda kind: kind.__name__)
def test_what_the_release_before_has_left_is_read_and_would_be_written_alike(kind: type[Output]) -> None:
    assert kind.from_json(LEFT[kind]).as_json() == LEFT[kind]


def test_what_a_shard_is_told_holds_only_what_it_needs() -> None:
    assert ReadRange(4, first=0, last=4).as_json() == {"pairs": 4, "first": 0, "last": 4}
    assert ReadRange(4, whole=True).as_json() == {"pairs": 4, "whole": True}
    assert BatchRange(0, 2, 4).as_json() == {"partition": 0, "first": 2, "last": 4}


def test_fields_have_their_names_of_before_in_json() -> None:
    assert WrittenPart("blob", "pairs", 2, 1) == WrittenPart(blob="blob", pairs="pairs", items=2, count=1)
    part = PlacedPart("pairs", 2, position=0, row=0, part=0)
    output = JoinOutput([[part]], 2, 0, None, "npy", "embeddings", 8, [], {})
    assert output.as_json()["ranges"] == [[{"found": "pairs", "items": 2, "position": 0, "row": 0, "part": 0}]]


def test_a_number_that_is_not_finite_is_null_in_json_and_nan_again() -> None:
    content = LEFT[CurvatureOutput] | {"relative_residual": None}
    output = CurvatureOutput.from_json(content)
    assert math.isnan(output.relative_residual)
    assert output.self_influence == SelfInfluenceMethod("exact", 0)


def test_what_is_not_of_the_type_is_refused() -> None:
    with pytest.raises(ValueError, match="parameters"):
        CurvatureOutput.from_json(
            {name: value for name, value in LEFT[CurvatureOutput].items() if name != "parameters"}
        )
