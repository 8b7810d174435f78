"""Score: every pair of some whole batches, along every direction, with one Jacobian-vector product a batch."""

import torch
from torch import Tensor

from ecif import Batch, Projected, flatten, normalise
from ecif.directions import Directions
from ecif.neighbours import Neighbourhood, joint
from ecif.over_partitions import self_influence_of
from ecif.parameters import size
from store.shards import Planned
from worker.analysis.baselines import Baselines
from worker.analysis.curvatures import directions, get_terms, per_pair, projected_rows, solved_curvature
from worker.analysis.problem import Problem, batch_ranges, batches_of, open_problem, pairs_of, places_of
from worker.analysis.stability import drawn_again
from worker.analysis.tensors import put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import BatchRange, CurvatureOutput, ScoreOutput
from worker.pipeline import Planning


def cut(planning: Planning) -> list[Planned]:
    """Whole batches each; none where queries are traced instead."""
    return [] if planning.spec.task == "traceback" else batch_ranges(planning)


def run(task: Task) -> Done[ScoreOutput]:
    """Score the batches of a shard."""
    with open_problem(task) as problem:
        solved = directions(problem)
        along, near = _directions(problem, solved), _neighbourhood(problem, solved)
        baselines = Baselines(problem)
        columns: dict[str, list[Tensor]] = {}
        embedded: list[tuple[Tensor, Tensor]] = []
        detected = problem.view.spec.task == "misalignment" and not BatchRange.from_json(task.claim.payload).partition
        for _, batch in batches_of(problem):
            text, image = _as_given(problem, batch)
            scored = _score(problem, along, near, batch, text, image) | baselines.score(batch)
            scored["clip_score"] = torch.linalg.vecdot(text, image)
            if detected:
                embedded.append((text.cpu(), image.cpu()))
            for name, values in scored.items():
                columns.setdefault(name, []).append(values.double().cpu())
        tensors = {name: torch.cat(values) for name, values in columns.items()}
        tensors |= baselines.on_checkpoints(places_of(problem))
        tensors["places"] = torch.cat(places_of(problem))
        if along is not None:
            tensors |= _apart(problem, along)
        blob = put_tensors(task.blobs, task.blob_name("scores.safetensors"), tensors)
        embeddings = None
        if detected:
            texts, images = (torch.cat(side) for side in zip(*embedded, strict=True))
            content = {"places": tensors["places"], "texts": texts, "images": images}
            embeddings = put_tensors(task.blobs, task.blob_name("embeddings.safetensors"), content)
        again = None
        if along is not None and (drawn := drawn_again(problem)):
            again = put_tensors(task.blobs, task.blob_name("again.safetensors"), _again(problem, along, near, drawn))
        total = pairs_of(problem)
    return Done(ScoreOutput(blob, total, embeddings, again), total)


def _again(problem: Problem, along: Directions, near: Neighbourhood | None, drawn: list[Tensor]) -> dict[str, Tensor]:
    """What the pairs at these places score in these batches, and `places`."""
    columns: dict[str, list[Tensor]] = {"places": drawn}
    for places in drawn:
        problem.task.lease.check()
        batch = problem.batch(places)
        for name, values in _score(problem, along, near, batch, *_as_given(problem, batch)).items():
            columns.setdefault(name, []).append(values.double().cpu())
    return {name: torch.cat(values) for name, values in columns.items()}


def _directions(problem: Problem, content: dict[str, Tensor]) -> Directions | None:
    """What the curvature phase left to push forward; `None` where there was no such phase."""
    solved = problem.view.output(CurvatureOutput)
    if solved is None:
        return None
    nothing = flatten(problem.params).new_zeros(0, size(problem.params))
    method = solved.self_influence.method
    return Directions(
        content.get("validation", nothing).to(nothing),
        content.get("probes", nothing).to(nothing),
        solved_curvature(problem) if method == "exact" else None,
        content["partners"].to(nothing) if "partners" in content else None,
        terms=get_terms(problem, content) if method == "kronecker" else None,
        leave_one_out="leave_one_out" in problem.view.spec.methods,
        groups=content["groups"].to(nothing) if "groups" in content else None,
    )


def _neighbourhood(problem: Problem, content: dict[str, Tensor]) -> Neighbourhood | None:
    """The groups of validation pairs that the curvature phase made; `None` where no method wanted them."""
    if "groups" not in content:
        return None
    return Neighbourhood(content["joint"].to(problem.device), content["group_of"].to(problem.device))


def _score(
    problem: Problem, along: Directions | None, near: Neighbourhood | None, batch: Batch, text: Tensor, image: Tensor
) -> dict[str, Tensor]:
    """text, image: of the batch, as given."""
    if along is None:
        with torch.no_grad():
            S = problem.objective.similarity(problem.params, batch)
            columns = {"pair_loss": problem.objective.loss.pair_loss(S)}
    else:
        # Alone: in one product with others its last digits would depend on which batches share its shard.
        mode = problem.view.spec.influence.negative
        (columns,) = along.score(problem.objective, problem.params, [batch], mode)
    if near is not None:
        columns["neighbour_influence"] = near.mean_over_nearest(joint(text, image), columns.pop("along_groups"))
    return columns


def _apart(problem: Problem, along: Directions) -> dict[str, Tensor]:
    """Self-influence where it is no matter of one batch, (n,) in the order of this shard. Of several partitions it is
    that of all, and stands in the shards of the first."""
    partitions, mine = len(problem.roster.partitions), BatchRange.from_json(problem.task.claim.payload)
    if mine.partition:
        return {}
    if per_pair(problem) == "projected":
        curvature = solved_curvature(problem)
        assert isinstance(curvature, Projected)  # noqa: S101
        _, rows = projected_rows(problem, problem.task.claim.index)
        return {"self_influence": curvature.self_influence(rows).cpu()}
    if along.curvature is None or partitions == 1:
        return {}
    value = self_influence_of(
        problem.objective,
        problem.params,
        problem.placed_batches,
        torch.cat(places_of(problem)),
        along.curvature,
        problem.view.spec.influence.negative,
    )
    return {"self_influence": value.cpu()}


@torch.no_grad()
def _as_given(problem: Problem, batch: Batch) -> tuple[Tensor, Tensor]:
    """Unit rows of texts and images (B, E)."""
    text, image = problem.objective.embed(problem.as_given, batch.images, batch.texts)
    return normalise(text), normalise(image)
