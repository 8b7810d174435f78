"""The pipeline: the one table of what runs in each phase, what it reads, what it leaves, and how it is cut.

What the queue and the API know of a phase too, its name, unit of progress, lane and version, stands in
`store/phases.py`; the types of what is left and told in `worker/outputs.py`.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import TypeVar

from sqlalchemy.orm import Session

from store import jobs, shards
from store.phases import Owner, OwnerKind, Phase
from store.shards import Planned
from store.specification import JobSpec
from store.states import JobStatus
from store.tables import Job
from worker.attempts import memory
from worker.attempts.task import Done, Task
from worker.outputs import (
    BaselinesOutput,
    BasesOutput,
    CheckOutput,
    CurvatureOutput,
    DetectOutput,
    EditOutput,
    EigenvaluesOutput,
    EncodeOutput,
    FactorsOutput,
    FetchOutput,
    FitOutput,
    IndexOutput,
    IngestOutput,
    JoinOutput,
    Json,
    Nothing,
    Output,
    PlanOutput,
    ProjectOutput,
    RankOutput,
    ScoreOutput,
    TraceOutput,
)

O = TypeVar("O", bound=Output)  # noqa: E741  of an output


@dataclass(frozen=True)
class Step:
    """One phase of one kind of owner.

    Attributes:
        module: what runs: it has `run(task) -> Done[leaves]` and, unless `single`, `cut(planning) -> list[Planned]`. It
            is imported when it is first needed: a worker that only fetches never imports torch.
        leaves: the type of what each shard leaves.
        reads: the types of what it reads of the phases before it. Others are not loaded: they may be of many shards.
        single: one shard that is told nothing. Where `cut` plans no shard, the phase is passed over.
        rounds: the module has `next_round(planning) -> list[Planned]` too: while that plans any shard, the phase has
            another round. What the phase leaves is what its last round does.
    """

    phase: Phase
    module: str
    leaves: type[Output]
    reads: tuple[type[Output], ...] = ()
    single: bool = False
    rounds: bool = False


_FITTED = (PlanOutput, EncodeOutput, FitOutput)
_KRONECKER = (BasesOutput, EigenvaluesOutput)
_INVERTED = (*_FITTED, *_KRONECKER, ProjectOutput, CurvatureOutput)

PIPELINE: dict[OwnerKind, tuple[Step, ...]] = {
    OwnerKind.DATASET: (
        Step(Phase.FETCH, "worker.ingest.fetch", FetchOutput, single=True),
        Step(Phase.INDEX, "worker.ingest.index", IndexOutput, single=True),
        Step(Phase.INGEST, "worker.ingest.read", IngestOutput),
        Step(Phase.JOIN, "worker.ingest.join", JoinOutput, (IndexOutput, IngestOutput), single=True),
        Step(Phase.REGISTER, "worker.ingest.register", Nothing),
    ),
    OwnerKind.MODEL: (
        Step(Phase.FETCH, "worker.ingest.fetch", FetchOutput, single=True),
        Step(Phase.CHECK, "worker.analysis.check", CheckOutput, single=True),
    ),
    OwnerKind.JOB: (
        Step(Phase.PLAN, "worker.analysis.plan", PlanOutput, single=True),
        Step(Phase.ENCODE, "worker.analysis.encode", EncodeOutput),
        Step(Phase.FIT, "worker.analysis.fit", FitOutput, (PlanOutput, EncodeOutput), rounds=True),
        Step(Phase.FACTORS, "worker.analysis.curvature_sums", FactorsOutput, _FITTED),
        Step(Phase.BASES, "worker.analysis.curvature_sums", BasesOutput, (*_FITTED, FactorsOutput)),
        Step(Phase.EIGENVALUES, "worker.analysis.curvature_sums", EigenvaluesOutput, (*_FITTED, BasesOutput)),
        Step(Phase.PROJECT, "worker.analysis.curvature_sums", ProjectOutput, _FITTED),
        Step(
            Phase.CURVATURE,
            "worker.analysis.curvature",
            CurvatureOutput,
            (*_FITTED, *_KRONECKER, ProjectOutput),
            rounds=True,
        ),
        Step(Phase.BASELINES, "worker.analysis.baselines", BaselinesOutput, (*_FITTED, *_KRONECKER, CurvatureOutput)),
        Step(Phase.EDIT, "worker.analysis.edit", EditOutput, (*_FITTED, CurvatureOutput)),
        Step(Phase.TRACE, "worker.analysis.trace", TraceOutput, _INVERTED),
        Step(Phase.SCORE, "worker.analysis.score", ScoreOutput, (*_INVERTED, BaselinesOutput)),
        Step(Phase.DETECT, "worker.analysis.detect", DetectOutput, (*_FITTED, ScoreOutput)),
        Step(
            Phase.RANK,
            "worker.analysis.rank",
            RankOutput,
            (*_FITTED, CurvatureOutput, BaselinesOutput, EditOutput, TraceOutput, ScoreOutput, DetectOutput),
        ),
        Step(Phase.LOAD, "worker.analysis.load", Nothing, (RankOutput,)),
    ),
}
"""In order. The module of an owner's last step has `finish(planning)` too, which ends the owner."""


def step_of(owner: Owner, phase: Phase) -> Step:
    """The step that a phase is for an owner."""
    return next(step for step in PIPELINE[owner.kind] if step.phase is phase)


def run(task: Task) -> Done[Output]:
    """Do the work of one shard. With its end, what it leaves in blobs is counted for its owner, and the most memory
    that it took is told."""
    memory.begin()
    task = replace(task, blobs=task.blobs.counted())
    step = step_of(task.claim.owner, task.claim.phase)
    try:
        done: Done[Output] = import_module(step.module).run(task)
        return replace(done, kept_bytes=task.kept_bytes(), peak=memory.peak())
    finally:
        memory.end()


@dataclass(frozen=True)
class Planning:
    """The moment at which a round of a phase of an owner has ended and the next is cut, in the transaction of its last
    shard.

    phase: the phase that is being cut.
    """

    session: Session
    owner: Owner
    phase: Phase

    @cached_property
    def job(self) -> Job:
        """The job whose phase it is; its row is held."""
        return jobs.get_including_deleted(self.session, self.owner.id)

    @cached_property
    def spec(self) -> JobSpec:
        """What the job is to do."""
        return JobSpec.model_validate(self.job.spec)

    def outputs(self, kind: type[O]) -> list[O]:
        """What all shards of a phase have left, in their order; nothing where the owner had no such phase."""
        return outputs(self.session, self.owner, kind)

    @cached_property
    def round(self) -> int:
        """The last round of this phase that was opened."""
        return shards.last_round(self.session, self.owner, self.phase)

    def left_by_round(self, round_: int) -> list[Json]:
        """What all shards of a round of this phase have left, in their order."""
        return shards.outputs(self.session, self.owner, self.phase, round_=round_)

    def output(self, kind: type[O]) -> O:
        """What the only shard of a phase has left, which every owner of this kind has."""
        (only,) = self.outputs(kind)
        return only


def outputs(session: Session, owner: Owner, kind: type[O]) -> list[O]:
    """What all shards of the phase that leaves this type have left, in their order."""
    step = next(step for step in PIPELINE[owner.kind] if step.leaves is kind)
    last = shards.last_round(session, owner, step.phase) if step.rounds else 0
    return [kind.from_json(output) for output in shards.outputs(session, owner, step.phase, round_=last)]


def advance(session: Session, owner: Owner, finished: Phase) -> bool:
    """Open the next round of the phase, or the next phase that has anything to do, or end the owner: true when it has
    ended. Called in the last shard's own transaction, which holds the owner's row."""
    job = jobs.get_including_deleted(session, owner.id) if owner.kind is OwnerKind.JOB else None
    if job is not None and JobStatus(job.status) is not JobStatus.RUNNING:
        if job.status == JobStatus.CANCELLING:
            jobs.finish_cancel(session, job)
        return False
    steps = PIPELINE[owner.kind]
    place = [step.phase for step in steps].index(finished)
    planned: list[Planned]
    if job is not None and steps[place].rounds:
        ended = Planning(session, owner, finished)
        planned = import_module(steps[place].module).next_round(ended)
        if planned:
            jobs.open_phase(session, job, finished, planned, round_=ended.round + 1)
            return False
    for step in steps[place + 1 :]:
        planning = Planning(session, owner, step.phase)
        planned = [Planned({})] if step.single else import_module(step.module).cut(planning)
        if planned:
            if job is not None:
                jobs.open_phase(session, job, step.phase, planned)
            else:
                shards.open_phase(session, owner, step.phase, planned)
            return False
    import_module(steps[-1].module).finish(Planning(session, owner, finished))
    return True
