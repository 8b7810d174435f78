"""The whole: predicted against real change of the validation loss when random 5 % subsets leave (`docs/design.md`, 11).

Three seeds fixed beforehand, 256 pairs, a fifth of them wrong, δ = 0.3; the floors are those of that page. At
twice this scale `hessian` stays above 0.97 but `gauss_newton` falls to 0.91–0.95: see docs/record.md. The bias of the
sigmoid loss is near its best: with one that is off by 1, `gauss_newton` falls to 0.81–0.92.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from ecif import (
    Batch,
    FitSettings,
    GaussNewton,
    Hessian,
    Objective,
    Params,
    dense_matrix,
    fit,
    flatten,
    score_batch,
    unflatten,
)
from ecif.curvature.ekfac import Ekfac
from ecif.datamodelling import DatamodellingScore, datamodelling_score, random_subsets
from ecif.losses import SIGMOID
from ecif.objective import Batches
from ecif.scoring import removal_gradient, score_removals
from tests.ecif.conftest import HeadsWorld, MakeHeads

SUBSETS = 100


class Refits:
    """One world, fitted, and what 100 refits without a twentieth of its pairs do to its validation loss."""

    def __init__(self, world: HeadsWorld) -> None:
        self.world, self.objective = world, world.objective
        best = fit(world.objective, world.params, world.batches, FitSettings(epochs=600, tolerance=1e-8))
        assert best.stationary
        self.params = best.params
        self.subsets = random_subsets(world.n, 0.05, SUBSETS, world.seed)
        self.base, self.gradient = world.validation(self.params)
        self.matrices = {kind: dense_matrix(kind(*self.given)) for kind in (Hessian, GaussNewton)}
        self.refits = self.refit()
        changes = [world.validation(unflatten(theta, self.params))[0] - self.base for theta in self.refits]
        self.actual = torch.tensor(changes, dtype=torch.float64)

    @property
    def given(self) -> tuple[Objective, Params, Batches]:
        return self.objective, self.params, self.world.batches

    def deleted_loss(self, theta: Tensor, batch: Batch, removed: Tensor) -> Tensor:
        """The batch's loss with pairs deleted, by −∞ in the denominators: no code of `roles` or `losses`."""
        text, image = self.objective.embed(unflatten(theta, self.params), batch.images, batch.texts)
        text, image = text / text.norm(dim=1, keepdim=True), image / image.norm(dim=1, keepdim=True)
        S = self.objective.scale * text @ image.mT
        if self.objective.loss is SIGMOID:
            own = torch.eye(len(S), dtype=torch.bool)
            cells = torch.log1p(torch.exp(torch.where(own, -1.0, 1.0) * (S + self.objective.bias)))
            return torch.where(removed[:, None] | removed[None, :], 0.0, cells).sum()
        rows = S.masked_fill(removed[None, :], -1e300).log_softmax(1).diagonal()
        columns = S.masked_fill(removed[:, None], -1e300).log_softmax(0).diagonal()
        return -torch.where(removed, 0.0, rows + columns).sum()

    def refit(self) -> Tensor:
        """All subsets at once: θ ← θ − H_R⁻¹∇f_R(θ) with each subset's own Hessian at the start, to a decrement of
        1e-6, far below the 1e-3 that a fit asks for."""
        start, ridge = flatten(self.params), self.objective.ridge()
        prior, thetas = flatten(self.objective.prior), start.expand(SUBSETS, -1)
        slope = torch.func.vmap(torch.func.grad(self.deleted_loss), (0, None, 0))
        bend = torch.func.vmap(torch.func.hessian(self.deleted_loss), (None, None, 0))
        parts = [(batch, self.subsets[:, batch.image_group]) for batch in self.world.batches()]
        H = sum(bend(start, *part) for part in parts) + ridge * torch.eye(start.numel(), dtype=start.dtype)
        factor = torch.linalg.cholesky(H)
        for _ in range(60):
            gradient = ridge * (thetas - prior) + sum(slope(thetas, *part) for part in parts)
            if float(gradient.square().sum(1).max()) / (2 * ridge) <= 1e-6:
                return thetas
            thetas = thetas - torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        raise AssertionError("a refit did not reach stationarity")

    def predicted(self, matrix: Tensor, form: str = "set") -> Tensor:
        return self.predicted_along(torch.linalg.solve(matrix, self.gradient)[None], form)

    def predicted_along(self, w: Tensor, form: str = "set") -> Tensor:
        change = torch.zeros(SUBSETS, dtype=torch.float64)
        for batch in self.world.batches():
            removed = self.subsets[:, batch.image_group]
            if form == "set":
                change += score_removals(self.objective, self.params, batch, w, removed)[0]
            else:
                scores = score_batch(self.objective, self.params, batch, w)
                change += removed.double() @ (scores.total if form == "singles" else scores.positive)[0]
        return change

    def score(self, matrix: Tensor, form: str = "set") -> DatamodellingScore:
        return datamodelling_score(self.predicted(matrix, form), self.actual)

    def score_along(self, w: Tensor) -> DatamodellingScore:
        return datamodelling_score(self.predicted_along(w), self.actual)


@pytest.fixture(scope="module", params=["softmax", "sigmoid"])
def refits(request: pytest.FixtureRequest, make_heads: MakeHeads) -> list[Refits]:
    of: dict[str, Any] = {"loss": SIGMOID, "bias": -6.0} if request.param == "sigmoid" else {}
    return [Refits(make_heads(seed, width=4, scale=5.0, **of)) for seed in (0, 1, 2)]


def check(scores: list[DatamodellingScore], floor: float) -> None:
    """The mean over the seeds reaches the floor, and no seed's interval lies below it."""
    assert sum(score.spearman for score in scores) / len(scores) >= floor, scores
    assert all(score.high >= floor for score in scores), scores


def test_the_hessian_predicts_what_refits_do(refits: list[Refits]) -> None:
    exact = [one.score(one.matrices[Hessian]) for one in refits]
    check(exact, 0.97)
    check([one.score(one.matrices[Hessian], "singles") for one in refits], 0.97)
    assert all(0.8 < score.slope < 1.25 for score in exact)
    for one, score in zip(refits, exact, strict=True):
        assert one.score(one.matrices[Hessian], "positive").spearman < score.spearman  # the negative role is needed
        assert one.score(torch.eye(32, dtype=torch.float64)).spearman < score.spearman - 0.05  # and the curvature


def test_gauss_newton_predicts_what_refits_do(refits: list[Refits]) -> None:
    check([one.score(one.matrices[GaussNewton]) for one in refits], 0.95)


def test_ekfac_stays_close_to_what_it_approximates(refits: list[Refits]) -> None:
    """Its floor is not the 0.95 that was hoped for: blocks between the two heads are missing (docs/record.md)."""
    scores = []
    for one in refits:
        w = Ekfac.of(*one.given, draws=32).solve(one.gradient[None]).x
        scores.append(one.score_along(w))
    check(scores, 0.8)


def test_a_set_removed_without_retraining_lands_near_its_refit(refits: list[Refits]) -> None:
    for one in refits:
        gradient = torch.zeros(SUBSETS, 32, dtype=torch.float64)
        for batch in one.world.batches():
            for i, subset in enumerate(one.subsets):
                gradient[i] += removal_gradient(one.objective, one.params, batch, subset[batch.image_group])
        real = one.refits - flatten(one.params)
        off = (torch.linalg.solve(one.matrices[Hessian], gradient.T).T - real).norm(dim=1) / real.norm(dim=1)
        assert float(off.median()) < 0.3
