"""Detect: learn from mismatches made of the user's own pairs which pairs look wrong, and why."""

import torch
from torch import Tensor

from ecif import Learned, learn_suspicion
from ecif.detection.grouping import Grouping
from ecif.detection.learned import looks
from ecif.detection.likeness import told_apart
from store import pairs
from store.shards import Planned
from worker.analysis import groups
from worker.analysis.problem import Problem, open_problem
from worker.analysis.roster import DATASET
from worker.analysis.stability import as_summary
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import DetectOutput, Json, PlanOutput, ScoreOutput
from worker.pipeline import Planning

REASONS = 3
"""Columns that a row names."""

_MOST_CAPTIONS = 200_000  # pairs up to which captions are read, for mismatches that differ by a word
_UNLIKE = 0.7  # AUROC from which a clean set that is told from the data cannot stand for it
_SURELY = 4.0  # standard errors above one half


def cut(planning: Planning) -> list[Planned]:
    """One shard: what wrong pairs look like is learned of all of them together."""
    if planning.spec.task != "misalignment":
        return []
    return [Planned({}, looks(planning.output(PlanOutput).pairs))]


def run(task: Task) -> Done[DetectOutput]:
    """Learn the suspicion of every training pair."""
    with open_problem(task) as problem:
        most, done = looks(problem.roster.n_pairs), 0

        def look() -> None:
            nonlocal done
            done += 1
            task.lease.progress(min(done, most))

        images, texts = _embedded(problem)
        caption_group, image_group = problem.groups()
        learned = learn_suspicion(
            images.to(problem.device),
            texts.to(problem.device),
            _captions(task, problem),
            caption_group,
            image_group,
            scale=float(problem.objective.scale_of(problem.as_given)),
            seed=problem.view.spec.objective.seed,
            on_point=look,
        )
        unlike = _unlike(task, problem, images, texts) if problem.view.clean_set else None
        output = DetectOutput(
            detected=put_tensors(task.blobs, task.blob_name("detected.safetensors"), _tensors(learned)),
            columns=learned.columns,
            report=_report(learned),
            reason=learned.reason,
            unlike=unlike,
        )
    return Done(output, most)


def _embedded(problem: Problem) -> tuple[Tensor, Tensor]:
    """(N, E) of images and texts by place, as the model was given."""
    images, texts = torch.zeros(0), torch.zeros(0)
    for output in problem.view.outputs(ScoreOutput):
        if output.embeddings is None:
            continue
        part = get_tensors(problem.task.blobs, output.embeddings)
        if not images.numel():
            images, texts = (part[name].new_empty(problem.roster.n_pairs, part[name].shape[1]) for name in _SIDES)
        images[part["places"]], texts[part["places"]] = part["images"], part["texts"]
    return images, texts


_SIDES = ("images", "texts")


def _captions(task: Task, problem: Problem) -> list[str] | None:
    """Of every training pair; None where there are too many, or none at all."""
    roster, view = problem.roster, problem.view
    if roster.n_pairs > _MOST_CAPTIONS:
        return None
    with task.database.transaction() as session:
        given = pairs.accepted_captions(session, view.dataset.number)
        clean = pairs.accepted_captions(session, view.validation.number) if view.validation else []
    of_source = [
        (given if source == DATASET else clean)[row]
        for source, row in zip(roster.source.tolist(), roster.row.tolist(), strict=True)
    ]
    return [caption or "" for caption in of_source] if any(of_source) else None


def _unlike(task: Task, problem: Problem, images: Tensor, texts: Tensor) -> float | None:
    view, roster = problem.view, problem.roster
    if view.spec.flag.by is not None:
        # Clean pairs calibrate within their group: that there are more of one group than of another does no harm.
        grouping = groups.groupings(task, view, roster, (view.spec.flag.by,))[view.spec.flag.by]
        images, texts = (_within(grouping, side) for side in (images, texts))
    clean = torch.arange(roster.n_pairs) >= roster.scored
    auroc, error = told_apart(images, texts, clean, view.spec.objective.seed)
    return auroc if auroc > max(_UNLIKE, 0.5 + _SURELY * error) else None


def _within(grouping: Grouping, rows: Tensor) -> Tensor:
    """(N, E) less the mean of the group."""
    sums = rows.new_zeros(len(grouping.names), rows.shape[1]).index_add_(0, grouping.of, rows)
    counts = torch.bincount(grouping.of, minlength=len(grouping.names)).clamp(min=1)
    return rows - (sums / counts[:, None])[grouping.of]


def _tensors(learned: Learned) -> dict[str, Tensor]:
    most = learned.contributions.topk(min(REASONS, len(learned.columns)), dim=1)
    return {
        "suspicion": learned.suspicion,
        "why": most.indices.contiguous(),
        "contribution": most.values.contiguous(),
        "better": learned.better,
        "exchanged": learned.exchanged,
        "injected": learned.injected_scores,
    }


def _report(learned: Learned) -> Json:
    """What `summary.suspicion` and `summary.stability` are made of."""
    return {
        "columns": learned.columns,
        "weights": learned.weights,
        "injected_auroc": learned.injected_auroc,
        "injected": learned.injected,
        "stability": as_summary(learned.stability, "exchanges"),
        "reason": learned.reason,
    }
