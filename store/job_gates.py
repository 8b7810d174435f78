"""The gates of jobs: whether one can be held before a job is promised, and its verdict at the end."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from store import datasets, jobs
from store.errors import InvalidError
from store.gates import OF_FLAGS, Bounds, Gate, Measured, judge
from store.job_phases import columns_of
from store.specification import JobSpec
from store.states import JobStatus
from store.summaries import GateVerdict
from store.tables import Job


def check(session: Session, spec: JobSpec) -> None:
    """Raise unless the job will measure all that its gate bounds, and its baseline has.

    Raises:
        InvalidError: naming the bound, or the baseline.
    """
    if spec.gate is None:
        return
    flags = spec.task == "misalignment"
    for level, bounds in spec.gate.levels():
        _check_measured(spec, f"gate.{level}", bounds, flags)
    if spec.gate.baseline is not None:
        _check_baseline(session, spec.gate)


def _check_measured(spec: JobSpec, place: str, bounds: Bounds, flags: bool) -> None:
    increase = bounds.increase.given() if bounds.increase else {}
    for name in OF_FLAGS:
        if not flags and (name in bounds.given() or name in increase):
            where = f"{place}.{name}" if name in bounds.given() else f"{place}.increase.{name}"
            reason = f"a {spec.task} flags nothing, so its gate cannot bound {name}: that is for misalignment"
            raise InvalidError("gate_not_measured", reason, where)
    known = columns_of(spec)
    for column in bounds.columns:
        if column not in known:
            raise InvalidError(
                "gate_not_measured",
                f"this job has no column {column!r}; it has {', '.join(sorted(known))}: name the method that makes it",
                f"{place}.columns.{column}",
            )


def _check_baseline(session: Session, gate: Gate) -> None:
    assert gate.baseline is not None  # noqa: S101  the caller has looked
    job = jobs.find(session, gate.baseline)
    if job is None:
        raise InvalidError("gate_baseline", f"there is no job {gate.baseline!r}", "gate.baseline")
    if job.status != JobStatus.SUCCEEDED:
        raise InvalidError("gate_baseline", f"job {job.id} is {job.status}: it has no summary", "gate.baseline")
    measured = _measured(session, job, job.summary or {})
    for level, bounds in gate.levels():
        for name in bounds.increase.given() if bounds.increase else {}:
            if measured.shares[name] is None:
                reason = f"job {job.id}, a {job.task}, has measured no {name} that gate.{level} could be held against"
                raise InvalidError("gate_baseline", reason, "gate.baseline")


def verdict(session: Session, gate: Gate, job: Job, summary: Mapping[str, Any]) -> GateVerdict:
    """The verdict on a job that is about to succeed with this summary. A baseline that was deleted meanwhile is looked
    at as long as its row is there; then what is held against it does not pass."""
    before = None if gate.baseline is None else jobs.find_including_deleted(session, gate.baseline)
    baseline = None if before is None or before.summary is None else _measured(session, before, before.summary)
    return judge(gate, _measured(session, job, summary), baseline)


def _measured(session: Session, job: Job, summary: Mapping[str, Any]) -> Measured:
    dataset = datasets.find_including_deleted(session, job.dataset_id)
    return Measured.of(summary, dataset.summary if dataset is not None else None)
