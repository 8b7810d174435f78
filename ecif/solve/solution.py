"""What a solve reached, what an interrupted one leaves, and how one fails.

Every curvature answers with a `Solution`, so none can be silent about its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

State = dict[str, Tensor]
"""Everything an interrupted computation needs in order to go on, as tensors to be stored."""

OnState = Callable[[State], None]


@dataclass(frozen=True)
class Solution:
    """x = H⁻¹·rhs for k right-hand sides.

    Attributes:
        x: (k, P).
        iterations: passes of the iteration (0 for a direct method).
        relative_residual: (k,) float64, ‖rhs − H·x‖ / ‖rhs‖ as evaluated at the end, not as recurred.
        eigenvalue_range: (least, largest) Ritz value of H seen, both inside its spectrum; None if unknown.
        converged: whether every right-hand side reached the tolerance.
    """

    x: Tensor
    iterations: int
    relative_residual: Tensor
    eigenvalue_range: tuple[float, float] | None
    converged: bool


class NegativeCurvature(ArithmeticError):  # noqa: N818 (it is a finding, not a fault)
    """The matrix to be inverted is not positive definite, so its inverse is no influence."""

    def __init__(self, curvature: float) -> None:
        self.curvature = curvature
        super().__init__(
            f"the curvature along a search direction is {curvature:.4g}, not positive: the parameters "
            "are not at a minimum of the training objective. Fit to stationarity, raise l2 or damping, "
            "or use the gauss_newton curvature, which is positive semi-definite everywhere."
        )


class NotConverged(ArithmeticError):  # noqa: N818
    """An iterative solve ended above its tolerance and the caller wanted strictness."""

    def __init__(self, iterations: int, residual: float, tolerance: float) -> None:
        self.residual = residual
        super().__init__(
            f"conjugate gradients ended after {iterations} iterations at relative residual "
            f"{residual:.3g}, above the tolerance {tolerance:.3g}: allow more iterations, raise damping, "
            "or loosen the tolerance."
        )
