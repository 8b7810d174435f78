"""Fit: bring the trainable weights to a stationary point, and watch each pair's loss on the way.

Wrong pairs are learned late, so the loss averaged over the epochs tells them better than the loss at the end
(measured: `docs/decisions/0005-suspicion.md`).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ecif import FitSettings, State, fit, flatten, positive
from ecif.parameters import Params
from store.shards import Planned
from store.specification import JobSpec
from worker.analysis.devices import adam_precision
from worker.analysis.models import starts_from_nothing
from worker.analysis.problem import Problem, open_problem
from worker.analysis.tensors import put_tensors
from worker.attempts.checkpoints import keeper, resumed
from worker.attempts.task import Done, Task
from worker.outputs import FitOutput
from worker.pipeline import Planning

ADAM_SHARE: dict[str, float | Literal["auto"]] = {"heads": "auto", "lora": 1.0, "all": 1.0}
"""Whole towers want every step they can get; a full-batch search pays off near a minimum, where heads start."""


def looked_at(epoch: int) -> bool:
    """Whether every pair's loss is taken at the end of this epoch: 1, 2, 3, 4, 5, 7, 9, 12, 16, 22, …

    A fit may end long before its last epoch, and what tells wrong pairs apart happens early.
    """
    look = 1
    while look < epoch:
        look = max(look + 1, int(1.4 * look))
    return look == epoch


def look_weight(spec: JobSpec, last: int, epoch: int) -> int:
    """What a look after `epoch` epochs weighs in the mean, the one before having been after `last`."""
    return epoch - last if starts_from_nothing(spec) else 1


def cut(planning: Planning) -> list[Planned]:
    """One shard, or none where the model is taken as it is."""
    fit_spec = planning.spec.fit
    return [Planned({}, fit_spec.epochs or 0)] if fit_spec else []


def run(task: Task) -> Done[FitOutput]:
    """Fit the weights of a job."""
    with open_problem(task) as problem:
        fit_spec = problem.view.spec.fit
        assert fit_spec is not None  # noqa: S101  planned only where asked for
        assert fit_spec.epochs is not None  # noqa: S101  filled in with the specification
        watched = _Watched(problem)
        state = resumed(task)
        if state is not None:
            watched.take_up(state)
        keep = keeper(task)
        scope = problem.view.spec.objective.scope
        precision = adam_precision(problem.device, scope)
        result = fit(
            problem.objective,
            problem.initial,
            problem.training_batches,
            FitSettings(
                epochs=fit_spec.epochs,
                learning_rate=fit_spec.learning_rate,
                adam_share=ADAM_SHARE[scope],
                adam_precision=precision,
            ),
            state=state,
            on_state=lambda now: keep({**now, **watched.as_state()}),
            on_epoch=watched.look,
        )
        checkpoints = {"checkpoints": torch.stack([flatten(weights) for weights in result.checkpoints])}
        output = FitOutput(
            checkpoints=put_tensors(task.blobs, task.blob_name("checkpoints.safetensors"), checkpoints),
            params=put_tensors(task.blobs, task.blob_name("params.safetensors"), result.params),
            losses=put_tensors(task.blobs, task.blob_name("losses.safetensors"), {"mean": watched.mean()}),
            last_look=watched.last_look,
            look_weight=watched.weight,
            epochs=result.epochs_done,
            objective=result.objective,
            gradient_norm=result.gradient_norm,
            decrement_bound=result.decrement_bound if problem.objective.l2 else None,
            stationary=result.stationary,
            adam_precision=precision,
            temperature=float(1 / problem.objective.scale_of(result.params)),
        )
    return Done(output, result.epochs_done)


@dataclass
class _Watched:
    """The mean of every training pair's loss over looks along the fit.

    A model from random weights learns right pairs before wrong ones, but first of all it must learn: a look then weighs
    as many epochs as have passed since the one before. One that knew something starts well and only unlearns: there
    all looks weigh the same, and those stand closer at the beginning.
    """

    problem: Problem
    last_look: int = 0
    weight: int = 0
    total: Tensor | None = None

    def look(self, epoch: int, params: Params) -> None:
        """Called at the end of every epoch."""
        self.problem.task.lease.progress(epoch)
        if looked_at(epoch):
            weight = look_weight(self.problem.view.spec, self.last_look, epoch)
            seen = weight * pair_losses(self.problem, params)
            self.total = seen if self.total is None else self.total + seen
            self.last_look, self.weight = epoch, self.weight + weight

    def mean(self) -> Tensor:
        """(N,) float64 up to the last look; zeros where the fit ended before the first."""
        if self.total is None:
            return torch.zeros(self.problem.roster.n_pairs, dtype=torch.float64)
        return self.total / self.weight

    def as_state(self) -> State:
        if self.total is None:
            return {}
        return {"watched.total": self.total, "watched.looked": torch.tensor([self.last_look, self.weight])}

    def take_up(self, state: State) -> None:
        self.total = state.pop("watched.total", None)
        self.last_look, self.weight = state.pop("watched.looked", torch.zeros(2, dtype=torch.int64)).tolist()


@torch.no_grad()
def pair_losses(problem: Problem, params: Params) -> Tensor:
    """Pos_n of every training pair, averaged over the partitions: (N,) float64 on the CPU."""
    total = torch.zeros(problem.roster.n_pairs, dtype=torch.float64)
    for partition in range(len(problem.roster.partitions)):
        for places in problem.roster.batches(partition):
            problem.task.lease.check()
            loss = positive(problem.objective.similarity(params, problem.batch(places)))
            total[places] += loss.double().cpu()
    return total / len(problem.roster.partitions)
