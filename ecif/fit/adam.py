"""Adam on a flat vector, its schedule and its automatic learning rate: the first part of a fit.

Kingma and Ba 2015, algorithm 1, β = (0.9, 0.98) as CLIP was trained. Departure: the l2 pull to the prior is part of
the gradient, not decoupled, because the objective whose influence is computed contains it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.parameters import Params, flatten

BETA = (0.9, 0.98)
EPSILON = 1e-8
_SHARE = 0.02  # of the parameters' root mean square, the automatic step
_BOUNDS = (1e-5, 3e-3)
_WARM_UP = 0.1  # of the schedule


@dataclass(frozen=True)
class Adam:
    """theta, mean, square: (P,) in the parameters' dtype; steps: made so far."""

    theta: Tensor
    mean: Tensor
    square: Tensor
    steps: int = 0

    @classmethod
    def start(cls, theta: Tensor) -> Adam:
        """At rest."""
        return cls(theta, torch.zeros_like(theta), torch.zeros_like(theta))

    def step(self, gradient: Tensor, learning_rate: float, root: float = 0.0) -> Adam:
        """One step; a gradient (P,) that is not finite is left out, as mixed-precision trainers do. root: added to the
        mean square under its root, which bounds how steep a step is in its gradient."""
        if not bool(gradient.isfinite().all()):
            return self
        t = self.steps + 1
        mean = torch.lerp(gradient, self.mean, BETA[0])
        square = torch.lerp(gradient.square(), self.square, BETA[1])
        spread = (square / (1 - BETA[1] ** t) + root).sqrt() + EPSILON
        theta = self.theta - (learning_rate / (1 - BETA[0] ** t)) * mean / spread
        return Adam(theta, mean, square, t)


def automatic_learning_rate(params: Params) -> float:
    """2 % of the root mean square of all trainable parameters, within [1e-5, 3e-3].

    Adam moves every parameter by about its learning rate per step, so a rule relative to the parameters' own
    size suits an identity head (E = 512: 9e-4) and a freshly initialised CLIP (≈ 1e-3) alike.
    """
    rms = float(flatten(params).double().square().mean().sqrt())
    return min(max(_SHARE * rms, _BOUNDS[0]), _BOUNDS[1])


def scheduled(progress: float) -> float:
    """The factor on the peak learning rate at progress in [0, 1): linear warm-up, then half a cosine to 0."""
    if progress < _WARM_UP:
        return 0.1 + 0.9 * progress / _WARM_UP  # not from 0: the first step of a short fit counts too
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))
