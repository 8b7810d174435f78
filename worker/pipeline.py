"""The pipeline as one declared graph: each phase, what does its shards, and how it is cut into them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from store import jobs
from store.shards import Planned
from store.specification import JobSpec
from store.states import JobStatus, Phase
from store.tables import Job
from worker.steps import (
    baselines,
    check,
    curvature,
    edit,
    encode,
    fetch,
    fit,
    index,
    ingest,
    join,
    kronecker,
    load,
    plan,
    project,
    rank,
    register,
    score,
    trace,
)
from worker.task import Done, Task


@dataclass(frozen=True)
class Step:
    """One phase of a job."""

    phase: Phase
    run: Callable[[Task], Done]
    shards: Callable[[Session, Job, JobSpec], list[Planned]]


JOB_STEPS = (
    Step(Phase.PLAN, plan.run, lambda *_: [Planned({})]),
    Step(Phase.ENCODE, encode.run, encode.shards),
    Step(Phase.FIT, fit.run, fit.shards),
    Step(Phase.FACTORS, kronecker.factors, kronecker.shards),
    Step(Phase.BASES, kronecker.bases, kronecker.bases_shards),
    Step(Phase.EIGENVALUES, kronecker.eigenvalues, kronecker.shards),
    Step(Phase.PROJECT, project.run, project.shards),
    Step(Phase.CURVATURE, curvature.run, curvature.shards),
    Step(Phase.BASELINES, baselines.run, baselines.shards),
    Step(Phase.EDIT, edit.run, edit.shards),
    Step(Phase.TRACE, trace.run, trace.shards),
    Step(Phase.SCORE, score.run, score.shards),
    Step(Phase.RANK, rank.run, rank.shards),
    Step(Phase.LOAD, load.run, load.shards),
)

_RUN: dict[Phase, Callable[[Task], Done]] = {
    Phase.FETCH: fetch.run,
    Phase.CHECK: check.run,
    Phase.INDEX: index.run,
    Phase.INGEST: ingest.run,
    Phase.JOIN: join.run,
    Phase.REGISTER: register.run,
    **{step.phase: step.run for step in JOB_STEPS},
}


def run(task: Task) -> Done:
    """Do the work of one shard. What it leaves in blobs is counted for its owner with the end of the shard."""
    task = replace(task, blobs=task.blobs.counted())
    done = _RUN[task.claim.phase](task)
    return replace(done, kept_bytes=task.kept_bytes())


def advance(session: Session, job: Job, finished: Phase) -> None:
    """Open the next phase that has anything to do, or end the job. Called in the last shard's own transaction."""
    if JobStatus(job.status) is not JobStatus.RUNNING:
        if job.status == JobStatus.CANCELLING:
            jobs.finish_cancel(session, job)
        return
    spec = JobSpec.model_validate(job.spec)
    place = [step.phase for step in JOB_STEPS].index(finished)
    for step in JOB_STEPS[place + 1 :]:
        planned = step.shards(session, job, spec)
        if planned:
            jobs.open_phase(session, job, step.phase, planned)
            return
    jobs.succeed(session, job, rank.summary(session, job))
