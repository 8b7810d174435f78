"""What influence functions predict when pairs leave, and what happens: refits without them, many subsets at a time.

Two oracles (`docs/design.md`, 11). At a stationary point, the objective without the subset R, from the same start:

    f_R(θ) = Σ_batches L(batch without R) + N·(δ/2)·‖θ − θ_prior‖².

Where the model is at no minimum, a refit would mostly show what more training does. There the proximal Bregman
objective (Bae et al. 2022, *If Influence Functions are the Answer, Then What is the Question?*) stands for it: of
L on whole batches what is left after its value and slope at the point θ̂ are taken away, so that θ̂ is its minimum,

    f_R(θ) = Σ_batches [ L(batch without R)(S) − ⟨∇L(batch)(Ŝ), S⟩ ] + N·(δ + λ)/2·‖θ − θ̂‖²,

and its Hessian at θ̂ is `GaussNewton`, exactly. The losses here delete by −1e300 in the denominators: no code of
`ecif.roles`, which is what they are to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import torch
from torch import Tensor
from torch.func import grad, vmap

from benchmarks.worlds import World
from ecif import Batch, random_subsets, removal_gradient, score_batch, score_removals, unflatten
from ecif.linearise import forward_mode
from ecif.parameters import Params, flatten, row_dot, size

Form = Literal["set", "singles", "taylor", "positive"]
FORMS: Final[dict[Form, str]] = {
    "set": "exact, set form",
    "singles": "exact, sum of singles",
    "taylor": "taylor, sum of singles",
    "positive": "positive role alone",
}


def predicted_changes(world: World, params: Params, direction: Tensor, subsets: Tensor) -> dict[Form, Tensor]:
    """w·∇(what leaves with each subset), (m,) float64 in every form, for direction w (P,) and subsets (m, n) bool."""
    total = {form: torch.zeros(len(subsets), dtype=torch.float64) for form in FORMS}
    for batch in world.train:
        removed = subsets[:, batch.image_group]
        along = world.objective, params, batch, direction[None].to(next(iter(params.values())))
        exact, taylor = score_batch(*along), score_batch(*along, "taylor")
        total["set"] += score_removals(*along, removed)[0]
        total["singles"] += removed.double() @ exact.total[0].double()
        total["taylor"] += removed.double() @ taylor.total[0].double()
        total["positive"] += removed.double() @ exact.positive[0].double()
    return total


def removal_gradients(world: World, params: Params, subsets: Sequence[Tensor] | Tensor) -> Tensor:
    """∇(Σ_R Pos + Neg_R) of each subset, (m, P) float64."""
    total = torch.zeros(len(subsets), size(params), dtype=torch.float64)
    for batch in world.train:
        for place, subset in enumerate(subsets):
            leaving = subset[batch.image_group]
            if bool(leaving.any()):
                total[place] += removal_gradient(world.objective, params, batch, leaving)
    return total


_TOLERANCE = 1e-6
"""Of the decrement's bound, in units of the summed loss: a thousandth of what a fit asks for."""
_MOST_STEPS = 100
_AT_ONCE = 50


@dataclass(frozen=True)
class Oracle:
    """A point θ̂ of a world, and what its refits minimise.

    params: θ̂. proximal: whether by the proximal Bregman objective. ridge: N·(δ + λ). inverse: that of
    the curvature of f at θ̂.
    """

    world: World
    params: Params
    proximal: bool
    ridge: float
    inverse: Tensor

    def refit(self, subsets: Tensor) -> tuple[Tensor, Tensor]:
        """(θ̂_{−R} (m, P), whether it is stationary (m,)) for (m, n) bool subsets: θ ← θ − H⁻¹∇f_R(θ), H that at θ̂."""
        parts = [self._refit(some) for some in torch.split(subsets, _AT_ONCE)]
        return torch.cat([thetas for thetas, _ in parts]), torch.cat([stationary for _, stationary in parts])

    def changes(self, thetas: Tensor) -> Tensor:
        """L_val at each of (m, P) minus L_val at θ̂, (m,)."""
        base = self.world.validate(self.params)[0]
        values = [self.world.validate(unflatten(theta, self.params))[0] for theta in thetas]
        return torch.tensor(values, dtype=torch.float64) - base

    def _refit(self, subsets: Tensor) -> tuple[Tensor, Tensor]:
        thetas = flatten(self.params).expand(len(subsets), -1).clone()
        step = torch.ones(len(subsets), 1, dtype=thetas.dtype)
        gradient = self._gradient(thetas, subsets)
        newton = self._solve(gradient)
        for _ in range(_MOST_STEPS):
            left = (~self._stationary(gradient)).nonzero()[:, 0]
            if not len(left):
                break
            trial = thetas[left] - step[left] * newton[left]
            there = self._gradient(trial, subsets[left])
            after = self._solve(there)
            # gᵀH⁻¹g falls along a short enough step wherever f_R is convex.
            improved = row_dot(there, after) < row_dot(gradient[left], newton[left])
            moved = left[improved]
            thetas[moved], gradient[moved], newton[moved] = trial[improved], there[improved], after[improved]
            step[left] = torch.where(improved[:, None], (1.2 * step[left]).clamp(max=1.0), step[left] / 2)
        return thetas, self._stationary(gradient)

    def _stationary(self, gradient: Tensor) -> Tensor:
        return gradient.square().sum(1) <= 2 * self.ridge * _TOLERANCE

    def _solve(self, gradient: Tensor) -> Tensor:
        return gradient @ self.inverse

    def _gradient(self, thetas: Tensor, subsets: Tensor) -> Tensor:
        centre = flatten(self.params if self.proximal else self.world.objective.prior)
        total = self.ridge * (thetas - centre)
        with forward_mode(), torch.no_grad():
            for batch in self.world.train:
                tilt = self._tilt(batch)
                slope = grad(partial(left_loss, self.world, self.params, batch, tilt))
                total = total + vmap(slope)(thetas, subsets[:, batch.image_group])
        return total

    def _tilt(self, batch: Batch) -> Tensor | None:
        if not self.proximal:
            return None
        S = self.world.objective.similarity(self.params, batch)
        return S.softmax(1) + S.softmax(0) - 2 * torch.eye(batch.size, dtype=S.dtype)


def left_loss(world: World, like: Params, batch: Batch, tilt: Tensor | None, theta: Tensor, removed: Tensor) -> Tensor:
    """The batch's loss at theta (P,) with the removed (B,) bool deleted, less `tilt` (B, B) times S."""
    S = world.objective.similarity(unflatten(theta, like), batch)
    rows = S.masked_fill(removed[None, :], -1e300).log_softmax(1).diagonal()
    columns = S.masked_fill(removed[:, None], -1e300).log_softmax(0).diagonal()
    loss = -torch.where(removed, 0.0, rows + columns).sum()
    # What is excluded from S is no function of θ, and its entry of the tilt is 0.
    return loss if tilt is None else loss - (tilt * S).sum()


def twentieths(world: World, count: int, seed: int) -> Tensor:
    """(count, n) bool: random 5 % subsets."""
    return random_subsets(world.n, 0.05, count, seed)
