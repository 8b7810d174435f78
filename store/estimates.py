"""What a job would take, by the phases of its tenant's finished jobs, scaled by how much there is to do.

The time of a phase goes with its size: pairs, times partitions, times epochs, times the width of embeddings, as far as
the phase depends on each. Both sizes are computed alike, from a specification and the number of pairs, so what a
phase leaves undone (a fit that ends early) is taken to be the same share. A phase is compared with phases of the same
version, of jobs that agree in whatever else decides how it computes (`_ALIKE`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy.orm import Session

from store import datasets, jobs
from store.clean_pairs import ValidationDataset, ValidationFraction
from store.job_phases import ROWS_A_SHARD, baselines, expected, shards_of_a_pass
from store.jobs import Finished
from store.phases import Phase
from store.specification import JobSpec
from store.tables import Dataset

_LATEST = 50  # finished jobs that are looked at
_NEAREST = 3  # in size, of those that compare
_NEVER = "no finished job has had such a phase: its model, scope or method is new here"
_ENCODED_BEFORE = "the jobs on this model found most of what they needed encoded already"

Json = dict[str, Any]


@dataclass(frozen=True)
class PhaseEstimate:
    """What a phase would take; `None` where that is not known. based_on: so many phases of earlier jobs; reason: in
    words, where there is none."""

    phase: Phase
    shards: int | None
    seconds: float | None
    memory_bytes: int | None
    device_memory_bytes: int | None
    based_on: int | None
    reason: str | None


@dataclass(frozen=True)
class Extent:
    """How much a job works on: accepted pairs of all its datasets, pairs in its batches, results, queries, and the
    width of embeddings (1 where a model makes them)."""

    pairs: int
    trained: int
    results: int
    queries: int
    width: int


def extent(spec: JobSpec, dataset: Dataset, validation: Dataset | None, queries: Dataset | None) -> Extent | None:
    """That of a job to be, as its plan will draw it; `None` while a dataset is not counted."""
    counts = [one.pair_count for one in (dataset, validation, queries) if one is not None]
    if any(count is None for count in counts):
        return None
    n, predictions = dataset.pair_count or 0, (queries.pair_count or 0) if queries else 0
    scored, calibration = n, 0
    if isinstance(spec.validation, ValidationFraction):
        scored = max(0, n - max(1, round(spec.validation.fraction * n)))
    elif isinstance(spec.validation, ValidationDataset) and validation is not None and spec.task == "misalignment":
        calibration = validation.pair_count or 0
    results = predictions * min(spec.queries.top, scored) if spec.queries else scored
    return Extent(sum(count or 0 for count in counts), scored + calibration, results, predictions, dataset.width or 1)


def estimate(session: Session, spec: JobSpec, named: Sequence[Dataset], extent: Extent | None) -> list[PhaseEstimate]:
    """Every phase that a job of this filled-in specification would have, in order."""
    phases = expected(spec)
    if extent is None:
        waiting = ", ".join(dataset.id for dataset in named if dataset.pair_count is None)
        reason = f"{waiting}: its pairs are counted when it is ready"
        return [PhaseEstimate(phase, None, None, None, None, None, reason) for phase in phases]
    earlier = jobs.finished(session, _LATEST)
    encoders = 1 + _encoding_checkpoints(spec.model_dump(mode="json"))
    parts = encoders * sum(datasets.count_parts(session, dataset.id) for dataset in named)
    return [_phase(phase, spec, extent, earlier, parts) for phase in phases]


def _phase(phase: Phase, spec: JobSpec, extent: Extent, earlier: Sequence[Finished], parts: int) -> PhaseEstimate:
    wanted = spec.model_dump(mode="json")
    size = _SIZE[phase](wanted, extent)
    comparable: list[tuple[float, Json]] = []  # (times as much to do, what it took then)
    reason = _NEVER
    for job in earlier:
        had = next((one for one in job.phases if one["phase"] == phase and one["version"] == phase.version), None)
        if had is None or _ALIKE[phase](job.spec) != _ALIKE[phase](wanted):
            continue
        if phase is Phase.ENCODE and _mostly_reused(job):
            reason = _ENCODED_BEFORE
            continue
        comparable.append((size / max(_SIZE[phase](job.spec, _extent_of(job, had)), 1.0), had))
    comparable.sort(key=lambda one: abs(math.log(max(one[0], 1e-9))))
    nearest = [(times, had) for times, had in comparable[:_NEAREST]]
    shards = _shards(phase, spec, extent, parts, nearest)
    if not nearest:
        return PhaseEstimate(phase, shards, None, None, None, None, reason)
    seconds = median(times * had["seconds"] for times, had in nearest)
    memory, device = (_most(had.get(name) for _, had in nearest) for name in ("memory_bytes", "device_memory_bytes"))
    return PhaseEstimate(phase, shards, round(seconds, 3), memory, device, len(nearest), None)


def _extent_of(job: Finished, had: Json) -> Extent:
    """That of a job that has been; of the phase, how many pairs each of its models really went over where nothing else
    says so."""
    counts = job.counts
    trained = counts["scored"] + counts["calibration"]
    encoded = had["pairs"] // (1 + _encoding_checkpoints(job.spec))
    return Extent(encoded, trained, job.result_count, counts.get("queries") or 0, job.width or 1)


def _mostly_reused(job: Finished) -> bool:
    images = (job.encoding or {}).get("images") or {"encoded": 1, "reused": 0}
    return bool(images["encoded"] < images["reused"])


def _most(values: Any) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _passes(spec: Json, extent: Extent) -> float:
    return float(extent.trained * spec["objective"]["partitions"] * extent.width)


def _checkpoints(spec: Json) -> int:
    return len((spec["model"] or {}).get("checkpoints") or ())


def _encoding_checkpoints(spec: Json) -> int:
    """The checkpoints that encode all pairs beside the model: where whole towers are trained they share its inputs."""
    return _checkpoints(spec) if spec["objective"]["scope"] == "heads" else 0


def _epochs(spec: Json, extent: Extent) -> float:
    epochs: int = (spec["fit"] or {}).get("epochs", 1)
    return _passes(spec, extent) * epochs


_SIZE: dict[Phase, Callable[[Json, Extent], float]] = {
    Phase.PLAN: lambda _, extent: extent.trained,
    Phase.ENCODE: lambda spec, extent: extent.pairs * (1 + _encoding_checkpoints(spec)),
    Phase.FIT: _epochs,
    Phase.FACTORS: _passes,
    Phase.BASES: lambda _, extent: extent.width,
    Phase.EIGENVALUES: _passes,
    Phase.PROJECT: _passes,
    Phase.CURVATURE: _passes,
    Phase.BASELINES: lambda spec, extent: (_epochs if "magic" in spec["methods"] else _passes)(spec, extent),
    Phase.EDIT: _passes,
    Phase.TRACE: lambda spec, extent: _passes(spec, extent) * extent.queries,
    Phase.SCORE: _passes,
    Phase.DETECT: lambda _, extent: extent.trained * extent.width,
    Phase.RANK: lambda _, extent: extent.trained,
    Phase.LOAD: lambda _, extent: extent.results,
}


def _named_model(spec: Json) -> Any:
    """Without its checkpoints, each of which takes what it takes."""
    return {name: value for name, value in (spec["model"] or {}).items() if name != "checkpoints"}


def _model(spec: Json) -> Any:
    """What decides how fast its pairs go through a model: which, what of it is trained, and in which batches."""
    objective = spec["objective"]
    return _named_model(spec), objective["scope"], objective.get("lora"), objective["batch_size"]


def _inverse(spec: Json) -> Any:
    solving = [method for method in ("ecif", "neighbour_influence") if method in spec["methods"]]
    return _model(spec), spec["influence"]["curvature"], solving, spec["task"] == "traceback"


def _methods(spec: Json) -> Any:
    named = baselines(JobSpec.model_construct(methods=tuple(spec["methods"]), task=spec["task"]))
    return _model(spec), named, _checkpoints(spec)


_ALIKE: dict[Phase, Callable[[Json], Any]] = {
    Phase.PLAN: _named_model,  # which it may load, to see whether its curvature fits
    Phase.ENCODE: lambda spec: (_named_model(spec), spec["objective"]["scope"] == "heads"),
    Phase.FIT: _model,
    Phase.FACTORS: _model,
    Phase.BASES: _model,
    Phase.EIGENVALUES: _model,
    Phase.PROJECT: _model,
    Phase.CURVATURE: _inverse,
    Phase.BASELINES: _methods,
    Phase.EDIT: lambda spec: (_inverse(spec), spec["verify"]),
    Phase.TRACE: _inverse,
    Phase.SCORE: lambda spec: (_inverse(spec), _methods(spec)),
    Phase.DETECT: lambda _: None,
    Phase.RANK: lambda spec: spec["task"] == "traceback",
    Phase.LOAD: lambda _: None,
}
"""What a job must have in common with an earlier one, for the time of a phase to say something."""


def _shards(
    phase: Phase, spec: JobSpec, extent: Extent, parts: int, nearest: Sequence[tuple[float, Json]]
) -> int | None:
    if phase is Phase.ENCODE:
        return parts
    if phase is Phase.LOAD:
        return math.ceil(extent.results / ROWS_A_SHARD)
    if phase in (Phase.FACTORS, Phase.EIGENVALUES, Phase.PROJECT, Phase.SCORE):
        return shards_of_a_pass(extent.trained, spec.objective.batch_size, spec.objective.partitions)
    if phase is Phase.TRACE:  # how many queries fit in a shard is known with the model's weights
        return math.ceil(nearest[0][1]["shards"] * nearest[0][0]) if nearest else None
    return 1
