"""A job with a gate: what is refused when it is submitted, and its verdict in the summary and in the webhook."""

import json
from typing import Any

import pytest
from sqlalchemy import select

from store.summaries import JobSummary
from store.tables import Delivery
from tests.service.exporting import World
from tests.service.test_documentation import is_whole
from tests.service_fixtures import ProblemOf


def spec_of(world: World, job: str, **more: Any) -> dict[str, Any]:
    spec = world.client.get(f"/jobs/{job}").json()["spec"]
    return {name: spec[name] for name in ("task", "dataset", "validation", "objective", "flag")} | more


@pytest.mark.parametrize(
    ("more", "code", "place"),
    [
        ({"task": "valuation", "gate": {"error": {"flagged": 0.1}}}, "gate_not_measured", "gate.error.flagged"),
        ({"gate": {"warn": {"columns": {"lemon": {"max": 1}}}}}, "gate_not_measured", "gate.warn.columns.lemon"),
        ({"gate": {"error": {"increase": {"noise": 0.1}}, "baseline": "job_0"}}, "gate_baseline", "gate.baseline"),
    ],
)
def test_what_the_job_cannot_measure_is_refused_at_once(
    world: World, embeddings: str, problem_of: ProblemOf, more: dict[str, Any], code: str, place: str
) -> None:
    spec = spec_of(world, embeddings, **more)
    if spec["task"] == "valuation":
        spec.pop("flag")
    problem = problem_of(world.client.post("/jobs", json=spec))
    assert problem["code"] == code
    assert problem["errors"][0]["loc"] == ["body", *place.split(".")]


def test_a_baseline_that_measured_no_flags_is_refused(
    world: World, embeddings: str, valuation: str, problem_of: ProblemOf
) -> None:
    gate = {"error": {"increase": {"flagged": 0.1}}, "baseline": valuation}
    problem = problem_of(world.client.post("/jobs", json=spec_of(world, embeddings, gate=gate)))
    assert problem["code"] == "gate_baseline"
    assert "has measured no flagged" in problem["detail"]


def test_the_verdict_is_in_the_summary_and_in_the_webhook(world: World, embeddings: str) -> None:
    counts = world.client.get(f"/jobs/{embeddings}").json()["summary"]["counts"]
    gate = {
        "error": {"rejected": 0.0, "increase": {"flagged": 0.0}},
        "warn": {"flagged": 0.0, "columns": {"clip_score": {"at": "0.5", "min": -1.0}}},
        "baseline": embeddings,
    }
    job = world.job(**spec_of(world, embeddings, gate=gate, notify={"url": "https://receiver.example/hook"}))
    shown = world.client.get(f"/jobs/{job}").json()
    assert shown["spec"]["gate"]["error"]["rejected"] == 0.0
    verdict = shown["summary"]["gate"]
    assert (verdict["verdict"], verdict["baseline"]) == ("warn", embeddings)
    by_rule = {check["rule"]: check for check in verdict["checks"]}
    assert by_rule["flagged"]["measured"] == counts["flagged"] / counts["scored"] > 0
    assert {rule: check["verdict"] for rule, check in by_rule.items()} == {
        "rejected": "pass",
        "increase.flagged": "pass",
        "flagged": "warn",
        "columns.clip_score": "pass",
    }
    is_whole(JobSummary, shown["summary"])
    with world.database.transaction() as session:
        body = json.loads(session.scalars(select(Delivery.body).where(Delivery.job_id == job)).one())
    assert body["data"]["summary"]["gate"] == verdict
