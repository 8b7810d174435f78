"""A gate: which are refused, and the verdict on what was measured."""

from typing import Any

import pytest
from pydantic import ValidationError

from store.gates import Gate, Measured, judge
from store.specification import JobSpec, version_of

SUMMARY: dict[str, Any] = {
    "counts": {"pairs": 90, "rejected": 10, "scored": 80, "flagged": 4},
    "flagging": {"estimated_noise_rate": 0.125},
    "scores": {"clip_score": {"mean": 0.3, "quantiles": {"0.05": 0.1, "0.5": 0.31}}},
}
DATASET = {"duplicates": {"image": {"groups": 3, "pairs": 12}}}
MEASURED = Measured.of(SUMMARY, DATASET)


def verdict(gate: dict[str, Any], measured: Measured = MEASURED, baseline: Measured | None = None) -> dict[str, Any]:
    return dict(judge(Gate.model_validate(gate), measured, baseline))


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ({}, "a gate has bounds under `error`, `warn` or both"),
        ({"error": {}}, "a level bounds something"),
        ({"error": {"flagged": 5}}, "less than or equal to 1"),
        ({"error": {"flaged": 0.05}}, "Extra inputs"),
        ({"error": {"columns": {"clip_score": {}}}}, "`min`, `max` or both"),
        ({"error": {"columns": {"clip_score": {"at": "0.3", "min": 0}}}}, "'0.25'"),
        ({"error": {"increase": {"flagged": 0.01}}}, "`increase` and `baseline` belong together"),
        ({"error": {"flagged": 0.01}, "baseline": "job_1"}, "`increase` and `baseline` belong together"),
    ],
)
def test_a_gate_that_says_nothing_or_nonsense_is_refused(gate: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Gate.model_validate(gate)


@pytest.mark.parametrize(
    ("name", "measured"), [("flagged", 0.05), ("noise", 0.125), ("rejected", 0.1), ("duplicates", 0.1)]
)
def test_each_share_passes_up_to_its_bound_and_not_beyond(name: str, measured: float) -> None:
    (check,) = verdict({"error": {name: measured}})["checks"]
    assert (check["measured"], check["bound"], check["verdict"]) == (measured, measured, "pass")
    assert verdict({"error": {name: measured - 0.001}})["verdict"] == "fail"
    assert verdict({"warn": {name: measured - 0.001}})["verdict"] == "warn"


def test_a_verdict_says_each_check_in_words() -> None:
    gate = {"error": {"flagged": 0.01}, "warn": {"columns": {"clip_score": {"at": "0.05", "min": 0.05, "max": 0.09}}}}
    made = verdict(gate)
    assert made["verdict"] == "fail"
    assert [(check["level"], check["rule"], check["comparison"], check["verdict"]) for check in made["checks"]] == [
        ("error", "flagged", "at most", "fail"),
        ("warn", "columns.clip_score", "at least", "pass"),
        ("warn", "columns.clip_score", "at most", "warn"),
    ]
    assert made["checks"][0]["message"] == "5 % of the scored pairs are flagged; at most 1 % is allowed"
    assert made["checks"][2]["message"] == "the 0.05 quantile of clip_score is 0.1; at most 0.09 is allowed"


def test_an_increase_is_over_the_baseline() -> None:
    gate = {"error": {"increase": {"flagged": 0.02, "noise": 0.01}}, "baseline": "job_1"}
    before = Measured({"flagged": 0.03, "noise": 0.1, "rejected": 0.0, "duplicates": None}, {})
    flagged, noise = verdict(gate, baseline=before)["checks"]
    assert (flagged["rule"], flagged["verdict"]) == ("increase.flagged", "pass")  # 0.05 - 0.03, rounding aside
    assert (noise["measured"], noise["verdict"]) == (pytest.approx(0.025), "fail")
    assert "against 10 % in job_1; at most 1 % more is allowed" in noise["message"]


def test_what_could_not_be_measured_does_not_pass() -> None:
    gate = {"error": {"increase": {"flagged": 0.5}}, "warn": {"columns": {"margin": {"max": 1}}}, "baseline": "job_1"}
    made = verdict(gate, baseline=None)
    assert [(check["measured"], check["verdict"]) for check in made["checks"]] == [(None, "fail"), (None, "warn")]
    unknown = Measured.of({**SUMMARY, "flagging": {"estimated_noise_rate": None}}, None)
    assert verdict({"error": {"noise": 1.0, "duplicates": 1.0}}, unknown)["verdict"] == "fail"


def test_a_job_with_a_gate_is_for_workers_that_know_of_it() -> None:
    spec = {"task": "misalignment", "dataset": "ds_1"}
    assert "gate" not in JobSpec.model_validate(spec).model_dump(mode="json")
    kept = JobSpec.model_validate({**spec, "gate": {"error": {"flagged": 0.05}}}).model_dump(mode="json")
    assert (version_of(kept), JobSpec.model_validate(kept).gate) == (9, Gate.model_validate(kept["gate"]))
