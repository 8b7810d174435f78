"""Baselines: what the methods beside ECIF need before batches are scored. The same machine with other parts.

docs/methods.md says which role, gradient and curvature each of them is."""

import torch
from torch import Tensor

from ecif import Batch, score_batch
from ecif.at_once import AtOnce
from ecif.detection.contrast import Contrast, contrast
from ecif.detection.groups import Groups
from ecif.methods import lemon, tracin, trak_direction, trak_kernel
from ecif.parameters import Params, unflatten
from ecif.similarity import normalise
from store.job_phases import baselines
from store.shards import Planned
from store.specification import ON_CHECKPOINTS
from worker.analysis.checkpoints import Point, at_checkpoint, checkpoint_model, named_checkpoints
from worker.analysis.curvatures import damping_of, ekfac, projection_of, refused_curvature
from worker.analysis.magic import magic_scores
from worker.analysis.problem import Problem, open_problem
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import BaselinesOutput, CurvatureOutput, FitOutput, MagicReport, MethodsToPrepare
from worker.pipeline import Planning

_NEIGHBOURS = 16_384  # pairs among which LEMoN looks for neighbours: all, or a sample
_TRAK_DRAWS = {"heads": 256, "lora": 8, "all": 8}
"""Reverse passes through each batch for TRAK's kernel. Of heads on cached features they are cheap, and as many as a
batch of the default size has margins."""


def cut(planning: Planning) -> list[Planned]:
    """One shard where any of them is asked for."""
    methods = baselines(planning.spec)
    return [Planned(MethodsToPrepare(methods).as_json(), len(methods))] if methods else []


def run(task: Task) -> Done[BaselinesOutput]:
    """Prepare every baseline that was asked for."""
    tensors: dict[str, Tensor] = {}
    methods = MethodsToPrepare.from_json(task.claim.payload).methods
    digests: dict[str, str] = {}
    report: MagicReport | None = None
    with open_problem(task) as problem:
        sent = named_checkpoints(problem.view.spec)
        apart = [method for method in methods if sent and method in ON_CHECKPOINTS]
        for done, method in enumerate(method for method in methods if method not in apart):
            task.lease.progress(done)
            if method == "magic":
                tensors["magic"], report = magic_scores(problem)
            else:
                tensors |= _PREPARE[method](problem)
        if apart:
            task.lease.progress(len(methods) - len(apart))
            tensors |= _on_checkpoints(problem, apart, digests)
        blob = put_tensors(task.blobs, task.blob_name("baselines.safetensors"), tensors)
    return Done(BaselinesOutput(blob, methods, digests, report), len(methods))


def _on_checkpoints(problem: Problem, methods: list[str], digests: dict[str, str]) -> dict[str, Tensor]:
    """TracIn and the margin of the checkpoints that were sent, each loaded once; notes their digests."""
    sent = named_checkpoints(problem.view.spec)
    tensors: dict[str, Tensor] = {}
    groups = _groups(problem)
    for place, checkpoint_id in enumerate(sent):
        model = checkpoint_model(problem.task, checkpoint_id, problem.device)
        digests[checkpoint_id] = model.digest
        with at_checkpoint(problem, checkpoint_id) as at:
            if "tracin" in methods:
                # A tensor for each: of whole towers they are as large as a model.
                tensors[f"tracin.{place}"] = _validation_gradient(at, at.params).float().cpu()
                if problem.view.spec.objective.scope == "heads":
                    tensors |= Point(at.params, at.objective.scale, at.objective.bias).tensors(place)
            if "margin" in methods:
                margin = _against_all(at, at.params, *groups).margin.double().cpu() / len(sent)
                tensors["margin"] = tensors["margin"] + margin if "margin" in tensors else margin
    return tensors


def checkpoints(problem: Problem) -> list[Params]:
    """The weights along the fit that TracIn sums over; where nothing was fitted, those of the model. Not for jobs that
    name checkpoints."""
    fitted = problem.view.output(FitOutput)
    if fitted is None:
        return [problem.params]
    rows = get_tensors(problem.task.blobs, fitted.checkpoints)["checkpoints"]
    return [unflatten(row.to(problem.device), problem.params) for row in rows]


def _validation_gradient(problem: Problem, params: Params) -> Tensor:
    return problem.objective.validation_gradient(params, problem.validation_batches(), problem.roster.n_validation)


def _tracin(problem: Problem) -> dict[str, Tensor]:
    return {"tracin": torch.stack([_validation_gradient(problem, params).float() for params in checkpoints(problem)])}


def _damping(problem: Problem) -> float:
    """λ of the job: that of its own curvature, where there is one."""
    solved = problem.view.output(CurvatureOutput)
    return solved.damping if solved is not None else damping_of(problem).value


def _ekfac_if(problem: Problem) -> dict[str, Tensor]:
    gradient = _validation_gradient(problem, problem.params)
    return {"ekfac_if": ekfac(problem, _damping(problem)).solve(gradient[None]).x.float()}


def _trak(problem: Problem) -> dict[str, Tensor]:
    objective, projection, wanted = problem.objective, projection_of(problem), problem.view.spec.objective
    kernel = trak_kernel(
        objective,
        problem.params,
        problem.training_batches,
        projection,
        draws=_TRAK_DRAWS[wanted.scope],
        seed=wanted.seed,
    )
    gradient = _validation_gradient(problem, problem.params)
    with refused_curvature("trak"):
        direction = trak_direction(projection, kernel, gradient[None], objective.ridge(_damping(problem)))
    return {"trak": direction.float()}


def _lemon(problem: Problem) -> dict[str, Tensor]:
    n = problem.roster.n_pairs
    if n < 2:
        return {"lemon": torch.zeros(n, dtype=torch.float64)}
    images, texts = _embedded(problem, problem.as_given)
    seed = problem.view.spec.objective.seed
    return {"lemon": lemon(images, texts, most=_NEIGHBOURS, seed=seed).double()}


def _contrast_loss(problem: Problem) -> dict[str, Tensor]:
    return {"contrast_loss": _against_all(problem, problem.params, *_groups(problem)).loss.double()}


def _margin(problem: Problem) -> dict[str, Tensor]:
    """The mean over the fit: what is wrong is learned last, and at its end may have been learned too."""
    groups, along = _groups(problem), checkpoints(problem)
    total = torch.zeros(problem.roster.n_pairs, dtype=torch.float64, device=problem.device)
    for params in along:
        total += _against_all(problem, params, *groups).margin
    return {"margin": total / len(along)}


def _against_all(problem: Problem, params: Params, captions: Groups, pictures: Groups) -> Contrast:
    images, texts = (normalise(rows) for rows in _embedded(problem, params))
    scale, seed = float(problem.objective.scale_of(params)), problem.view.spec.objective.seed
    return contrast(images, texts, captions, pictures, scale=scale, seed=seed)


@torch.no_grad()
def _embedded(problem: Problem, params: Params) -> tuple[Tensor, Tensor]:
    """Images and captions of all pairs, (N, E) float32 each, not normalised."""

    def embedded(some: slice) -> tuple[Tensor, Tensor]:
        problem.task.lease.check()
        batch = problem.batch(everyone[some])
        text, image = problem.objective.embed(params, batch.images, batch.texts)
        return image.float(), text.float()

    everyone = torch.arange(problem.roster.n_pairs)
    images, texts = zip(*AtOnce("pairs", 1024).pieces(len(everyone), embedded), strict=True)
    return torch.cat(images), torch.cat(texts)


def _groups(problem: Problem) -> tuple[Groups, Groups]:
    """Which captions and which images are equal."""
    captions, images = problem.groups()
    return Groups.by(captions), Groups.by(images)


_PREPARE = {
    "tracin": _tracin,
    "trak": _trak,
    "ekfac_if": _ekfac_if,
    "lemon": _lemon,
    "contrast_loss": _contrast_loss,
    "margin": _margin,
}


class Baselines:
    """Those of one job; none where none was asked for."""

    def __init__(self, problem: Problem) -> None:
        output = problem.view.output(BaselinesOutput)
        content = get_tensors(problem.task.blobs, output.prepared) if output is not None else {}
        self._problem = problem
        # What belongs to a checkpoint that was sent is looked at with it: of whole towers it is as large as a model.
        self._sent = {name: tensor for name, tensor in content.items() if name.startswith(("tracin.", "checkpoint."))}
        self._prepared = {name: content[name].to(problem.device) for name in content.keys() - self._sent.keys()}
        self._checkpoints = checkpoints(problem) if "tracin" in content else []

    def on_checkpoints(self, batches: list[Tensor]) -> dict[str, Tensor]:
        """TracIn over the checkpoints that were sent, (n,) float64 of the pairs of these batches, which are places in
        the roster, in their order; nothing where none were sent for it."""
        sent = named_checkpoints(self._problem.view.spec) if self._sent else ()
        sums = [torch.zeros(len(places), dtype=torch.float64) for places in batches]
        for place, checkpoint_id in enumerate(sent):
            gradient = self._sent[f"tracin.{place}"].to(self._problem.device)
            with at_checkpoint(self._problem, checkpoint_id, Point.among(self._sent, place)) as at:
                for places, sum_ in zip(batches, sums, strict=True):
                    self._problem.task.lease.check()
                    # Each weighs the same: how fast the training was there is not known here.
                    sum_ += tracin(at.objective, [at.params], [1 / len(sent)], [gradient], at.batch(places)).cpu()
        return {"tracin": torch.cat(sums)} if sent else {}

    def score(self, batch: Batch) -> dict[str, Tensor]:
        """(B,) each; without those that hold a pair against all others."""
        problem, prepared = self._problem, self._prepared
        columns: dict[str, Tensor] = {}
        if self._checkpoints:
            # Each checkpoint weighs the same: the learning rate along a fit says little where Adam scales every weight.
            rates = [1 / len(self._checkpoints)] * len(self._checkpoints)
            columns["tracin"] = tracin(problem.objective, self._checkpoints, rates, list(prepared["tracin"]), batch)
        along = [name for name in ("ekfac_if", "trak") if name in prepared]
        if along:
            directions = torch.cat([prepared[name] for name in along])
            pair = score_batch(problem.objective, problem.params, batch, directions).pair
            columns |= dict(zip(along, pair, strict=True))
        return columns
