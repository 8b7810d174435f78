"""How answers are had that would need a solve for every pair, and how far a solve goes (`docs/design.md`, section 4).

Where the matrix can be written out, exactly. Above that, by random probes: one solve each where a pass over the data is
cheap, or through the diagonal of the curvature where every pass goes through whole towers
(measured in `docs/decisions/0006-how-far-a-solve-goes.md`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from ecif.batches import Batch
from ecif.curvature.base import Curvature, Identity
from ecif.curvature.dense import LARGEST, Dense
from ecif.curvature.diagonal import Diagonal
from ecif.curvature.ekfac import Ekfac
from ecif.curvature.gauss_newton import GaussNewton
from ecif.curvature.hessian import Hessian
from ecif.objective import Batches, Objective
from ecif.parameters import Params, size
from ecif.self_influence import probe_rhs
from ecif.traceback import normal_probes

CurvatureName = Literal["gauss_newton", "hessian", "ekfac", "projected", "identity"]

Scope = Literal["heads", "lora", "all"]
"""Which weights are trained: heads on cached features, adapters on every linear map, or whole towers."""

PerPair = Literal["exact", "projected", "probes", "diagonal"]
"""How answers that need a solve for every pair are had: exactly where the model is small, else estimated."""

PROBES: dict[PerPair, int] = {"exact": 0, "projected": 0, "probes": 16, "diagonal": 8}
"""Directions that self-influence is estimated along: relative standard errors of 35 % and 50 %."""

SPAN_PROBES = 32
"""Directions that the Gram matrices of a traceback are estimated along."""


@dataclass(frozen=True)
class Effort:
    """How far a solve goes. A pass over cached features is cheap; one through whole towers is not.

    Attributes:
        tolerance: relative residual; scores are less sensitive than this to the last digits of a direction.
        max_passes: over the data.
        largest_condition: what `damping: "auto"` keeps the condition number under, and so the number of passes.
        by_diagonal: self-influence through the curvature's diagonal instead of a solve for every probe.
    """

    tolerance: float
    max_passes: int
    largest_condition: float
    by_diagonal: bool


EFFORT: dict[Scope, Effort] = {
    "heads": Effort(1e-3, 500, math.inf, by_diagonal=False),
    "lora": Effort(1e-2, 100, 300.0, by_diagonal=True),
    "all": Effort(1e-2, 100, 300.0, by_diagonal=True),
}


def per_pair(curvature: CurvatureName, parameters: int, scope: Scope) -> PerPair:
    """How a model of so many trained parameters has what would need a solve for every pair."""
    if curvature == "projected":
        return "projected"
    if parameters <= LARGEST:
        return "exact"
    iterative = curvature in ("gauss_newton", "hessian")
    return "diagonal" if iterative and EFFORT[scope].by_diagonal else "probes"


def from_products(
    curvature: Literal["gauss_newton", "hessian"],
    objective: Objective,
    params: Params,
    batches: Batches,
    *,
    damping: float,
    scope: Scope,
) -> Curvature:
    """The curvature known by its products with vectors, written out and factorised where it is small enough.

    Raises:
        NegativeCurvature: it was written out and is not positive definite.
    """
    kind = Hessian if curvature == "hessian" else GaussNewton
    if size(params) <= LARGEST and objective.closed_form(params):
        # A matrix of six million beside a ridge of twelve is not positive in single precision; heads that small cost
        # little in double.
        objective, params, batches = _wide(objective, params, batches)
    matrix = kind(
        objective,
        params,
        batches,
        damping=damping,
        tolerance=EFFORT[scope].tolerance,
        max_iterations=EFFORT[scope].max_passes,
    )
    return Dense.of(matrix) if size(params) <= LARGEST else matrix


def _wide(objective: Objective, params: Params, batches: Batches) -> tuple[Objective, Params, Batches]:
    """The same heads in float64."""

    def doubled() -> Iterator[Batch]:
        for batch in batches():
            yield replace(batch, images=batch.images.double(), texts=batch.texts.double())

    prior, wide = ({name: tensor.double() for name, tensor in of.items()} for of in (objective.prior, params))
    return replace(objective, prior=prior), wide, doubled


@dataclass(frozen=True)
class Probes:
    """Random directions whose covariance is H⁻¹ after they are solved for.

    Attributes:
        rows: (k, P).
        solved: whether no solve is needed any more.
        partners: (k, P), G⁻¹·rows, where the rows have the covariance G of Gauss-Newton and H is the Hessian, which has
            no square root to draw from: H⁻¹·rows and the partners then have the cross-covariance H⁻¹.
    """

    rows: Tensor
    solved: bool
    partners: Tensor | None = None


def draw_probes(
    curvature: Curvature,
    objective: Objective,
    params: Params,
    batches: Batches,
    *,
    method: PerPair,
    damping: float,
    seed: int,
) -> Probes:
    """The directions that self-influence is estimated along, as many as `PROBES` says of the method.

    Passes over the data are made where the curvature does not know its own square root.
    """
    count = PROBES[method]
    if isinstance(curvature, Identity):
        return Probes(normal_probes(params, count, seed), solved=True)
    if isinstance(curvature, Ekfac):
        return Probes(curvature.probes(count, seed), solved=True)
    if method == "diagonal":
        diagonal = Diagonal.of(objective, params, batches, damping=damping, seed=seed)
        return Probes(diagonal.probes(count, seed), solved=True)
    rows = probe_rhs(objective, params, batches, count, seed, damping)
    if not isinstance(curvature, Hessian):
        return Probes(rows, solved=False)
    near = GaussNewton(
        objective,
        params,
        batches,
        damping=damping,
        tolerance=curvature.tolerance,
        max_iterations=curvature.max_iterations,
    )
    return Probes(rows, solved=False, partners=near.solve(rows).x)
