"""Conjugate gradients for several right-hand sides in the same passes over the data.

The k recurrences are those of Hestenes and Stiefel, independent but for sharing every application of H
(Golub and Van Loan, *Matrix Computations*, 11.3; preconditioned, 11.5). Departures: scalars are float64 whatever the
vectors are; a claim to have converged is checked against rhs − H·x, and where rounding has let the recurrence drift
away from it, the recurrence starts afresh from the true residual while that still gains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ecif.parameters import row_dot
from ecif.solve.solution import NegativeCurvature, NotConverged, OnState, Solution, State

Apply = Callable[[Tensor], Tensor]
"""(k, P) to (k, P): a symmetric positive definite matrix times each row."""


def conjugate_gradients(
    apply: Apply,
    rhs: Tensor,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
    strict: bool = False,
    preconditioner: Apply | None = None,
    state: State | None = None,
    on_state: OnState | None = None,
) -> Solution:
    """Solve H·x = rhs for the rows of rhs (k, P), each to ‖rhs − H·x‖ ≤ tolerance·‖rhs‖.

    Args:
        preconditioner: an approximate inverse of H, symmetric positive definite and the same for a resumed solve;
            the tolerance is still of the plain residual. The eigenvalue range is then unknown (it would be that of
            the preconditioned matrix).
        strict: raise rather than return when the tolerance was not reached.
        state: what `on_state` was last handed; the result then equals that of an undisturbed solve.
        on_state: called before every product with H, so that whoever cannot make one here goes on from there.

    Raises:
        NegativeCurvature: H is not positive definite along a search direction.
        NotConverged: `strict`, and max_iterations or the floating-point floor came first.
        ValueError: rhs is not (k, P) or not finite, or the state is of another system.
    """
    if rhs.ndim != 2 or not bool(rhs.isfinite().all()):
        raise ValueError("the right-hand side must be (k, P) and finite")
    if not len(rhs):
        return Solution(rhs.double(), 0, rhs.new_zeros(0, dtype=torch.float64), None, converged=True)
    precondition = preconditioner or _as_it_is
    now = _start(rhs, precondition) if state is None else _resume(rhs, state)
    hand_out: OnState = on_state or _nothing
    hand_out(dict(now))
    while True:
        while bool(now["active"].any()) and int(now["iteration"]) < max_iterations:
            now = _iterate(apply, precondition, now, tolerance)
            hand_out(dict(now))
        now = _verify(apply, precondition, rhs, now, tolerance)
        hand_out(dict(now))
        if not bool(now["active"].any()) or int(now["iteration"]) >= max_iterations:
            break
    iterations, worst = int(now["iteration"]), float(now["verified"].max())
    if strict and worst > tolerance:
        raise NotConverged(iterations, worst, tolerance)
    return Solution(
        x=now["x"],
        iterations=iterations,
        relative_residual=now["verified"],
        eigenvalue_range=ritz_range(now["alpha"], now["beta"]) if preconditioner is None else None,
        converged=worst <= tolerance,
    )


def _nothing(_: State) -> None:
    return


def _as_it_is(residual: Tensor) -> Tensor:
    return residual


def _start(rhs: Tensor, precondition: Apply) -> State:
    k, device = rhs.shape[0], rhs.device
    squared = row_dot(rhs, rhs)
    direction = precondition(rhs).to(rhs)
    return {
        "x": torch.zeros_like(rhs),
        "residual": rhs,
        "direction": direction,
        "squared": squared,  # ‖residual‖²
        "rho": row_dot(rhs, direction),  # residual · preconditioned residual
        "rhs_norm": squared.sqrt(),
        "active": squared > 0,
        "verified": torch.full((k,), torch.inf, dtype=torch.float64, device=device),
        "link": torch.zeros(k, dtype=torch.float64, device=device),  # β into the coming iteration
        "alpha": torch.zeros(0, k, dtype=torch.float64, device=device),  # NaN where a row had finished
        "beta": torch.zeros(0, k, dtype=torch.float64, device=device),
        "iteration": torch.tensor(0),
    }


_SAME = 1e-4  # relative: another device rounds its way to the same right-hand side differently


def _resume(rhs: Tensor, state: State) -> State:
    norm = row_dot(rhs, rhs).sqrt()
    if state["x"].shape != rhs.shape or not torch.allclose(state["rhs_norm"].to(norm), norm, rtol=_SAME, atol=0):
        raise ValueError("the state belongs to another right-hand side")
    return {name: tensor.to(rhs.device) for name, tensor in state.items()}


def _iterate(apply: Apply, precondition: Apply, now: State, tolerance: float) -> State:
    active, direction = now["active"], now["direction"]
    image = torch.zeros_like(direction)
    image[active] = apply(direction[active]).to(direction.dtype)
    curvature = row_dot(direction, image)
    if bool((curvature[active] <= 0).any()):
        length = row_dot(direction, direction)
        raise NegativeCurvature(float((curvature / length)[active].min()))
    alpha = torch.where(active, now["rho"] / curvature, 0.0)
    step = alpha.to(direction.dtype)[:, None]
    residual = now["residual"] - step * image
    squared = torch.where(active, row_dot(residual, residual), now["squared"])
    onward = precondition(residual).to(residual)
    rho = torch.where(active, row_dot(residual, onward), now["rho"])
    beta = torch.where(active, rho / now["rho"], 0.0)
    still = active & (squared.sqrt() > tolerance * now["rhs_norm"])
    return now | {
        "x": now["x"] + step * direction,
        "residual": residual,
        "direction": onward + beta.to(direction.dtype)[:, None] * direction,
        "squared": squared,
        "rho": rho,
        "active": still,
        "link": beta,
        "alpha": torch.cat([now["alpha"], torch.where(active, alpha, torch.nan)[None]]),
        "beta": torch.cat([now["beta"], now["link"][None]]),
        "iteration": now["iteration"] + 1,
    }


def _verify(apply: Apply, precondition: Apply, rhs: Tensor, now: State, tolerance: float) -> State:
    """The true residuals; rows above the tolerance go on from them if the last round halved theirs."""
    norm = now["rhs_norm"]
    residual = rhs - apply(now["x"]).to(rhs.dtype)
    squared = row_dot(residual, residual)
    relative = torch.where(norm > 0, squared.sqrt() / norm, 0.0)
    again = (relative > tolerance) & (relative <= 0.5 * now["verified"])
    restart = again[:, None]
    onward = precondition(residual).to(residual)
    return now | {
        "residual": torch.where(restart, residual, now["residual"]),
        "direction": torch.where(restart, onward, now["direction"]),
        "squared": torch.where(again, squared, now["squared"]),
        "rho": torch.where(again, row_dot(residual, onward), now["rho"]),
        "link": torch.where(again, 0.0, now["link"]),
        "active": again,
        "verified": relative,
    }


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
