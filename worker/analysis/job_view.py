"""A job as its steps see it: the specification, what it works on, and what earlier phases left."""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

from sqlalchemy.orm import Session

from store import datasets, jobs
from store.clean_pairs import CLEAN, ValidationFraction
from store.errors import LostLeaseError
from store.specification import JobSpec
from worker import pipeline
from worker.analysis.records import PartBlob
from worker.attempts.task import Task
from worker.outputs import Output, PlanOutput

O = TypeVar("O", bound=Output)  # noqa: E741  of an output


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
    read: dict[type[Output], list[Output]]

    @classmethod
    def of(cls, task: Task) -> "JobView":
        """The job that a shard belongs to.

        Raises:
            LostLeaseError: it is gone.
        """
        with task.database.transaction() as session:
            owner = task.claim.owner
            job = jobs.find_including_deleted(session, owner.id)
            if job is None:
                raise LostLeaseError(f"job {owner} is gone")
            step = pipeline.step_of(owner, task.claim.phase)
            return cls(
                id=job.id,
                number=job.number,
                results_apart=job.results_apart,
                tenant=job.tenant,
                spec=JobSpec.model_validate(job.spec),
                dataset=_dataset(session, job.dataset_id),
                validation=_dataset(session, job.validation_dataset_id) if job.validation_dataset_id else None,
                queries=_dataset(session, job.queries_dataset_id) if job.queries_dataset_id else None,
                read={kind: pipeline.outputs(session, owner, kind) for kind in step.reads},
            )

    def outputs(self, kind: type[O]) -> list[O]:
        """What all shards of a phase have left, in their order; nothing where the job had no such phase.

        Raises:
            KeyError: the step of this shard does not declare that it reads it.
        """
        return cast("list[O]", self.read[kind])

    def output(self, kind: type[O]) -> O | None:
        """What the only shard of a phase has left; `None` where the job had no such phase."""
        return next(iter(self.outputs(kind)), None)

    @cached_property
    def plan(self) -> PlanOutput:
        (plan,) = self.outputs(PlanOutput)
        return plan

    @property
    def clean_set(self) -> bool:
        """Whether there is a validation set that is known to be clean: one of its own, or pairs that were judged."""
        return isinstance(self.spec.validation, CLEAN)

    @property
    def held_out(self) -> float:
        """The fraction of the dataset that is held out for validation."""
        validation = self.spec.validation
        return validation.fraction if isinstance(validation, ValidationFraction) else 0.0


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
