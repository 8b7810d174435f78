"""How a solve is done, how far it goes, and how answers are had that would need one for every pair.

Of two linear heads by closed forms: exactly where the matrix can be written out in about two seconds, else from
Kronecker factors, which directions are preconditioned by, too. Of other models exactly up to 4,096 parameters; above
that by random probes, one solve each where a pass over the data is cheap, or through the diagonal of the curvature
where every pass goes through whole towers. Measured in `docs/decisions/0025-what-a-solve-costs.md` and
`docs/decisions/0006-how-far-a-solve-goes.md` (`docs/design.md`, section 4).
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
from ecif.curvature.kronecker import Kronecker, Terms
from ecif.notebook import Notebook
from ecif.objective import Batches, Objective
from ecif.parameters import Params, size
from ecif.self_influence import probe_rhs
from ecif.traceback import normal_probes

CurvatureName = Literal["gauss_newton", "hessian", "ekfac", "projected", "identity"]

Scope = Literal["heads", "lora", "all"]
"""Which weights are trained: heads on cached features, adapters on every linear map, or whole towers."""

PerPair = Literal["exact", "kronecker", "projected", "probes", "diagonal"]
"""How answers that need a solve for every pair are had."""

PROBES: dict[PerPair, int] = {"exact": 0, "kronecker": 0, "projected": 0, "probes": 16, "diagonal": 8}
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
    "heads": Effort(1e-2, 500, math.inf, by_diagonal=False),
    "lora": Effort(1e-2, 100, 300.0, by_diagonal=True),
    "all": Effort(1e-2, 100, 300.0, by_diagonal=True),
}


WRITTEN_OUT = 5e9
"""Multiplications that a matrix of heads may take to be written out, factorised and solved with for every pair."""


def per_pair(
    curvature: CurvatureName, objective: Objective, params: Params, scope: Scope, *, spans: bool = False
) -> PerPair:
    """How a model has what would need a solve for every pair; spans: that is the Gram matrices of a traceback."""
    parameters = size(params)
    if curvature == "projected":
        return "projected"
    if curvature == "gauss_newton" and factored(objective, params) and not spans:
        work = parameters**2 * (3 * objective.n_pairs + parameters)
        return "exact" if parameters <= LARGEST and work <= WRITTEN_OUT else "kronecker"
    if parameters <= LARGEST:
        return "exact"
    iterative = curvature in ("gauss_newton", "hessian")
    return "diagonal" if iterative and EFFORT[scope].by_diagonal else "probes"


def factored(objective: Objective, params: Params) -> bool:
    """Whether Kronecker factors can stand for every pair: of heads in closed form, and in one partition, as a pair's
    gradient is the mean of those in all of them."""
    return objective.closed_form(params) and objective.partitions == 1


def from_products(
    curvature: Literal["gauss_newton", "hessian"],
    objective: Objective,
    params: Params,
    batches: Batches,
    *,
    damping: float,
    scope: Scope,
    method: PerPair,
    seed: int = 0,
    notebook: Notebook | None = None,
) -> Curvature:
    """The curvature known by its products with vectors: written out and factorised where `method` is "exact", and that
    of heads otherwise preconditioned by its Kronecker factors, which the notebook keeps.

    Raises:
        NegativeCurvature: it was written out and is not positive definite.
    """
    kind = Hessian if curvature == "hessian" else GaussNewton
    exact, closed = method == "exact", objective.closed_form(params)
    near = None
    if closed and not exact and kind is GaussNewton and objective.ridge(damping) > 0:
        factors = (notebook or Notebook()).once(
            "kronecker", lambda: Kronecker.of(objective, params, batches, damping=damping, seed=seed).tensors()
        )
        near = Kronecker.of_tensors(factors, objective.ridge(damping), params)
    if closed and exact:
        # A matrix of six million beside a ridge of twelve is not positive in single precision; heads that small cost
        # little in double.
        objective, params, batches = in_double(objective, params, batches)
    matrix = kind(
        objective,
        params,
        batches,
        damping=damping,
        tolerance=EFFORT[scope].tolerance,
        max_iterations=EFFORT[scope].max_passes,
        preconditioner=near,
    )
    return Dense.of(matrix) if exact else matrix


def kronecker_terms(curvature: Curvature) -> dict[str, Terms]:
    """Of what `from_products` made where every pair is had by "kronecker"."""
    near = curvature.preconditioner if isinstance(curvature, GaussNewton) else None
    assert isinstance(near, Kronecker)  # noqa: S101
    return near.terms()


def in_double(objective: Objective, params: Params, batches: Batches) -> tuple[Objective, Params, Batches]:
    """The same objective, weights and batches in float64; of heads that is cheap."""

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
    notebook: Notebook | None = None,
) -> Probes:
    """The directions that self-influence is estimated along, as many as `PROBES` says of the method.

    Passes over the data are made where the curvature does not know its own square root; what they give is kept in the
    notebook.
    """
    count, notes = PROBES[method], notebook or Notebook()
    if isinstance(curvature, Identity):
        return Probes(normal_probes(params, count, seed), solved=True)
    if isinstance(curvature, Ekfac):
        return Probes(curvature.probes(count, seed), solved=True)
    if method == "diagonal":
        made = notes.once(
            "diagonal",
            lambda: {"diagonal": Diagonal.of(objective, params, batches, damping=damping, seed=seed).diagonal},
        )
        diagonal = Diagonal(made["diagonal"].to(next(iter(params.values())).device))
        return Probes(diagonal.probes(count, seed), solved=True)
    drawn = notes.once("draws", lambda: {"rows": probe_rhs(objective, params, batches, count, seed, damping)})
    rows = drawn["rows"].to(next(iter(params.values())).device)
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
    solved = notes.once(
        "partners",
        lambda: {"x": near.solve(rows, state=notes.state("partners"), on_state=notes.keep("partners")).x},
    )
    return Probes(rows, solved=False, partners=solved["x"].to(rows))
