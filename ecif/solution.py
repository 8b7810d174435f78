"""What a solve reached: every curvature answers in this form, so none can be silent about its end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
