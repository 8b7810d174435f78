"""What can go wrong in the mathematics and is the caller's to decide about."""

from __future__ import annotations


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
    """An iterative solve ended above its tolerance and the caller asked for strictness."""

    def __init__(self, iterations: int, residual: float, tolerance: float) -> None:
        self.residual = residual
        super().__init__(
            f"conjugate gradients ended after {iterations} iterations at relative residual "
            f"{residual:.3g}, above the tolerance {tolerance:.3g}: allow more iterations, raise damping, "
            "or loosen the tolerance."
        )
