"""The part of a spectrum that conjugate gradients have seen, from their coefficients."""

from __future__ import annotations

import torch
from torch import Tensor


def ritz_range(alpha: Tensor, beta: Tensor) -> tuple[float, float] | None:
    """(least, largest) Ritz value of H, from the step lengths α and links β of its CG runs.

    CG is the Lanczos process in disguise: T has diagonal ``1/α_i + β_i/α_{i−1}`` and off-diagonal
    ``√β_i/α_{i−1}``, β_i linking iteration i−1 to i (Golub and Van Loan 11.3; Saad, *Iterative Methods*, 6.7).
    A restart has β = 0, which cuts T into blocks. Ritz values lie inside the spectrum of H.

    Args:
        alpha: (iterations, k) float64, NaN where a right-hand side had already finished.
        beta: (iterations, k) float64.

    Returns:
        None where no iteration was made.
    """
    values: list[Tensor] = []
    for column in range(alpha.shape[1]):
        made = ~alpha[:, column].isnan()
        a, b = alpha[made, column], beta[made, column]
        if a.numel() == 0:
            continue
        diagonal = 1 / a
        diagonal[1:] += b[1:] / a[:-1]
        beside = b[1:].sqrt() / a[:-1]
        T = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)
        values.append(torch.linalg.eigvalsh(T))
    if not values:
        return None
    seen = torch.cat(values)
    return float(seen.min()), float(seen.max())
