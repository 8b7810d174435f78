"""A job as its steps see it: the specification, what it works on, and what earlier phases left."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy.orm import Session

from store import datasets, shards
from store.errors import LostLeaseError
from store.specification import JobSpec, ValidationDataset, ValidationFraction
from store.states import Phase
from store.tables import Job
from worker.records import PartBlob
from worker.task import Task

Json = dict[str, Any]


@dataclass(frozen=True)
class DatasetView:
    """A ready dataset. `parts` are what ingest wrote: images as they came, or records of embeddings."""

    id: str
    number: int
    kind: str
    width: int | None
    pair_count: int
    rejected_count: int
    parts: tuple[PartBlob, ...]


@dataclass(frozen=True)
class JobView:
    """One job at the time when a shard of it was claimed."""

    id: str
    number: int
    results_apart: int
    tenant: str
    spec: JobSpec
    dataset: DatasetView
    validation: DatasetView | None
    queries: DatasetView | None
    outputs: dict[Phase, list[Json]]

    @classmethod
    def of(cls, task: Task) -> "JobView":
        """The job that a shard belongs to.

        Raises:
            LostLeaseError: it is gone.
        """
        with task.database.transaction() as session:
            job = session.get(Job, task.claim.job_id)
            if job is None:
                raise LostLeaseError(f"job {task.claim.job_id} is gone")
            return cls(
                id=job.id,
                number=job.number,
                results_apart=job.results_apart,
                tenant=job.tenant,
                spec=JobSpec.model_validate(job.spec),
                dataset=_dataset(session, job.dataset_id),
                validation=_dataset(session, job.validation_dataset_id) if job.validation_dataset_id else None,
                queries=_dataset(session, job.queries_dataset_id) if job.queries_dataset_id else None,
                outputs={phase: shards.outputs(session, phase, job_id=job.id) for phase in _READ[task.claim.phase]},
            )

    def output(self, phase: Phase) -> Json | None:
        """What the only shard of a phase left; `None` where the job had no such phase."""
        found = self.outputs[phase]
        return found[0] if found else None

    @cached_property
    def plan(self) -> Json:
        (plan,) = self.outputs[Phase.PLAN]
        return plan

    @property
    def clean_set(self) -> bool:
        """Whether there is a validation set that is known to be clean: one of its own, not a part of the data."""
        return isinstance(self.spec.validation, ValidationDataset)

    @property
    def held_out(self) -> float:
        """The fraction of the dataset that is held out for validation."""
        validation = self.spec.validation
        return validation.fraction if isinstance(validation, ValidationFraction) else 0.0


# What each phase reads of those before it: outputs of many shards are not fetched where they are not needed.
_BEFORE = (Phase.PLAN, Phase.ENCODE, Phase.FIT)
_KRONECKER = (Phase.BASES, Phase.EIGENVALUES)
_READ: dict[Phase, tuple[Phase, ...]] = {
    Phase.PLAN: (),
    Phase.ENCODE: (),
    Phase.FIT: (Phase.PLAN, Phase.ENCODE),
    Phase.FACTORS: _BEFORE,
    Phase.BASES: (*_BEFORE, Phase.FACTORS),
    Phase.EIGENVALUES: (*_BEFORE, Phase.BASES),
    Phase.PROJECT: _BEFORE,
    Phase.CURVATURE: (*_BEFORE, *_KRONECKER, Phase.PROJECT),
    Phase.BASELINES: (*_BEFORE, *_KRONECKER),
    Phase.EDIT: (*_BEFORE, Phase.CURVATURE),
    Phase.TRACE: (*_BEFORE, *_KRONECKER, Phase.PROJECT, Phase.CURVATURE),
    Phase.SCORE: (*_BEFORE, *_KRONECKER, Phase.PROJECT, Phase.CURVATURE, Phase.BASELINES),
    Phase.RANK: (*_BEFORE, Phase.CURVATURE, Phase.BASELINES, Phase.EDIT, Phase.TRACE, Phase.SCORE),
    Phase.LOAD: (Phase.RANK,),
}


def _dataset(session: Session, dataset_id: str) -> DatasetView:
    dataset = datasets.get(session, dataset_id)
    parts = datasets.parts(session, dataset_id)
    return DatasetView(
        id=dataset.id,
        number=dataset.number,
        kind=dataset.kind or "",
        width=dataset.width,
        pair_count=dataset.pair_count or 0,
        rejected_count=dataset.rejected_count or 0,
        parts=tuple(PartBlob(part.blob, part.first_row, part.count) for part in parts),
    )


def single(session: Session, job: Job, phase: Phase) -> Json | None:
    """The output of a phase of one shard, for planning the next; `None` where the job had no such phase."""
    found = shards.outputs(session, phase, job_id=job.id)
    return found[0] if found else None
