"""dattri 0.3.0: TRAK, influence functions by conjugate gradients, EK-FAC, and TracIn."""

import torch
from dattri.algorithm.influence_function import IFAttributorCG, IFAttributorEKFAC
from dattri.algorithm.tracin import TracInAttributor
from dattri.algorithm.trak import TRAKAttributor
from dattri.task import AttributionTask
from problem import example_losses
from torch.utils.data import DataLoader


def _task(problem, checkpoints=None):
    def mean_loss(params, data):
        # One example comes without its first dimension.
        texts, images, excluded, place = (one if data[3].ndim else one[None] for one in data)
        S = torch.func.functional_call(problem.model, params, (texts, images, excluded))
        return example_losses(S, place).mean()

    return AttributionTask(mean_loss, problem.model, checkpoints or problem.model.state_dict())


def _queries(problem):
    return DataLoader(problem.queries, batch_size=1, shuffle=False)


def conjugate_gradients(problem):
    """The exact Hessian of the mean loss. All examples stand in one batch: of several the package adds up the inverses
    of each one's Hessian, where the inverse of the sum is meant. It solves anew
    for every pair of a batch of examples and a query."""
    attributor = IFAttributorCG(_task(problem), max_iter=60, tol=1e-6, regularization=problem.ridge)
    attributor.cache(problem.whole())
    return attributor.attribute(problem.whole(), _queries(problem)).sum(1)


def ekfac(problem):
    """Its Fisher matrix is the empirical one, of the observed labels."""
    attributor = IFAttributorEKFAC(_task(problem), damping=problem.ridge)
    attributor.cache(problem.train())
    return attributor.attribute(problem.train(), _queries(problem)).sum(1)


def trak(problem):
    task = _task(problem)

    def probability(params, data):
        texts, images, excluded, place = (one[None] for one in data)
        S = torch.func.functional_call(problem.model, params, (texts, images, excluded))
        return torch.exp(-0.5 * example_losses(S, place))[0]

    parameters = sum(p.numel() for p in problem.model.parameters())
    attributor = TRAKAttributor(
        task,
        probability,
        projector_kwargs={"device": "cpu", "proj_dim": 512, "use_half_precision": False},
        regularization=problem.n * problem.ridge / parameters,
    )
    attributor.cache(problem.train())
    singles = DataLoader(problem.singles, batch_size=64, shuffle=False)
    return attributor.attribute(singles).sum(1)


def tracin(problem):
    """Over the same checkpoints as ours, each of weight 1."""
    task = _task(problem, problem.checkpoints)
    attributor = TracInAttributor(
        task,
        weight_list=torch.ones(len(problem.checkpoints)),
        normalized_grad=False,
        projector_kwargs={"device": "cpu", "proj_dim": 2048, "use_half_precision": False},
    )
    return attributor.attribute(problem.train(), _queries(problem)).sum(1)
