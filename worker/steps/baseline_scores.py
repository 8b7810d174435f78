"""The baselines' scores of a batch, from what the baselines phase prepared."""

from torch import Tensor

from ecif import Batch, score_batch
from ecif.methods import tracin, trak_features, trak_scores
from worker.curvatures import projection_of
from worker.outputs import BaselinesOutput
from worker.problem import Problem
from worker.steps.baselines import checkpoints
from worker.tensors import get_tensors


class Baselines:
    """Those of one job; none where none was asked for."""

    def __init__(self, problem: Problem) -> None:
        baselines = problem.view.output(BaselinesOutput)
        content = get_tensors(problem.task.blobs, baselines.prepared) if baselines is not None else {}
        self._problem = problem
        self._prepared = {name: tensor.to(problem.device) for name, tensor in content.items()}
        self._checkpoints = checkpoints(problem) if "tracin" in content else []
        self._projection = projection_of(problem) if "trak_kernel" in content else None

    def score(self, batch: Batch) -> dict[str, Tensor]:
        """(B,) each. LEMoN is not among them: it is no matter of batches."""
        problem, prepared = self._problem, self._prepared
        columns: dict[str, Tensor] = {}
        if self._checkpoints:
            # Each checkpoint weighs the same: the learning rate along a fit says little where Adam scales every weight.
            rates = [1 / len(self._checkpoints)] * len(self._checkpoints)
            columns["tracin"] = tracin(problem.objective, self._checkpoints, rates, list(prepared["tracin"]), batch)
        if "ekfac_if" in prepared:
            columns["ekfac_if"] = score_batch(problem.objective, problem.params, batch, prepared["ekfac_if"]).positive[
                0
            ]
        if self._projection is not None:
            part = trak_features(problem.objective, problem.params, batch, self._projection)
            ridge = problem.objective.ridge()
            columns["trak"] = trak_scores(part, prepared["trak_kernel"], prepared["trak_query"], ridge)[0]
        return columns
