"""Plan: settle the defaults that depend on the data, draw the seeded roster and fix batch membership."""

import torch

from ecif import plan_batches
from ecif.batches import validation_order
from store import datasets, jobs, marks
from store.clean_pairs import ValidationMarks
from store.errors import InvalidError
from store.specification import JobSpec, fill_for_kind
from worker.analysis import groups
from worker.analysis.checkpoints import check_alike
from worker.analysis.job_view import JobView
from worker.analysis.memory import check_memory
from worker.analysis.roster import DATASET, VALIDATION, Roster, put_removed, resolve
from worker.attempts.task import Done, Task
from worker.outputs import PlanOutput


def run(task: Task) -> Done[PlanOutput]:
    """Draw the roster of a job.

    Raises:
        InvalidError: the datasets do not fit the specification, or leave nothing to work on, or a checkpoint is of
            another architecture, or a curvature or a method is too large for this worker.
    """
    view = JobView.of(task)
    spec = _settled(task, view)
    groups.check(task, view, spec.flag.by)
    roster = draw(view, spec, _judged_right(task, view, spec))
    check_alike(task, spec)
    check_memory(task, view, spec, roster.n_pairs)
    removed = resolve(task, view, spec, roster) if spec.task == "removal" else None
    output = PlanOutput(
        roster=roster.save(task.blobs, task.blob_name("roster.safetensors")),
        pairs=roster.n_pairs,
        scored=roster.scored,
        calibration=roster.n_pairs - roster.scored,
        validation=roster.n_validation,
        batches=len(roster.batches(0)),
        removed=int(removed.sum()) if removed is not None else None,
        removed_blob=put_removed(task, removed) if removed is not None else None,
    )
    return Done(output, roster.n_pairs, lambda session: jobs.set_spec(session, view.id, spec.model_dump(mode="json")))


def _settled(task: Task, view: JobView) -> JobSpec:
    with task.database.transaction() as session:
        dataset = datasets.get_including_deleted(session, view.dataset.id)
        validation = datasets.get_including_deleted(session, view.validation.id) if view.validation else None
        return fill_for_kind(view.spec, dataset, validation)


def _judged_right(task: Task, view: JobView, spec: JobSpec) -> torch.Tensor | None:
    """Rows of the pairs that were kept on the random sample that the job calibrates by; None where it names none."""
    if not isinstance(spec.validation, ValidationMarks):
        return None
    with task.database.transaction() as session:
        earlier = jobs.get(session, spec.validation.marks)
        rows = marks.clean_rows(session, earlier, view.dataset.number)
    return torch.tensor(rows, dtype=torch.int64)


def draw(view: JobView, spec: JobSpec, judged_right: torch.Tensor | None = None) -> Roster:
    """The roster of a job: a pure function of its specification, its datasets' sizes and the rows of the dataset that
    were judged to be right, where it calibrates by such.

    Raises:
        InvalidError: no pair is left to score, or none to validate on.
    """
    objective = spec.objective
    rows = torch.arange(view.dataset.pair_count)
    calibration = rows.new_empty(0)
    validation, validation_source = rows.new_empty(0), VALIDATION
    if view.validation is not None:
        validation = validation_order(view.validation.pair_count, objective.seed)
        # Only `misalignment` calibrates: the clean set then stands among the scored pairs too. What it ranks by makes
        # no use of the validation loss, so that no half has to be kept from it.
        calibration = validation.sort().values if spec.task == "misalignment" else calibration
    elif judged_right is not None:
        held_out = torch.zeros(len(rows), dtype=torch.bool)
        held_out[judged_right] = True
        validation = judged_right[validation_order(len(judged_right), objective.seed)]
        rows, validation_source = rows[~held_out], DATASET
        if not len(rows):
            raise InvalidError("nothing_to_score", "every pair was judged to be right", "validation.marks")
        calibration = validation.sort().values if spec.task == "misalignment" else calibration
    elif view.held_out:
        shuffled = validation_order(view.dataset.pair_count, objective.seed)
        held = max(1, round(view.held_out * len(shuffled)))
        rows, validation, validation_source = shuffled[held:].sort().values, shuffled[:held], DATASET
        if not len(rows):
            raise InvalidError(
                "nothing_to_score",
                f"a fraction of {view.held_out:g} leaves none of {len(shuffled)} pairs to score",
                "validation.fraction",
            )
    if spec.validation is not None and not len(validation):
        raise InvalidError("nothing_to_validate", "the validation set holds no pair", "validation")
    n = len(rows) + len(calibration)
    return Roster(
        source=torch.cat([torch.full_like(rows, DATASET), torch.full_like(calibration, validation_source)]),
        row=torch.cat([rows, calibration]),
        scored=len(rows),
        partitions=plan_batches(n, objective.batch_size, objective.partitions, objective.seed),
        validation_source=torch.full_like(validation, validation_source),
        validation_row=validation,
        batch_size=objective.batch_size,
    )
