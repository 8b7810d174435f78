"""The damping λ, given or chosen (design sections 1 and 9: no labels are needed for this rule).

δ already bounds H from below by N·δ, and damping biases every influence towards plain gradients, so nothing is
added while δ is a fair share of the curvature. Otherwise δ + λ is lifted to that share of the mean eigenvalue:

    λ = max(0, SHARE · tr(G)/(P·N) − δ)

with G the Gauss-Newton matrix without regulariser. Its trace is E‖Jᵀξ‖² over draws ξ of covariance ∇²_S L (a
Hutchinson estimate through the square root of G: never negative, and needing reverse mode only).
"""

from __future__ import annotations

from dataclasses import dataclass

from ecif.curvature.loss_curvature import sample_root
from ecif.linearise import pull
from ecif.objective import Batches, Objective
from ecif.parameters import Params, row_dot, size
from ecif.seeds import generator

SHARE = 1e-2


@dataclass(frozen=True)
class DampingChoice:
    """λ per pair, the mean Gauss-Newton eigenvalue per pair (None: not measured), and why."""

    value: float
    mean_eigenvalue: float | None
    reason: str


def mean_eigenvalue(objective: Objective, params: Params, batches: Batches, *, probes: int = 4, seed: int = 0) -> float:
    """tr(G)/(P·N), G = (1/R) Σ Jᵀ(∇²_S L)J: an unbiased estimate from seeded probes, in one pass."""
    trace = 0.0
    for place, batch in enumerate(batches()):
        S, back = pull(objective, params, batch)
        roots = back(sample_root(S, probes, generator(seed, place)))
        trace += float(row_dot(roots, roots).mean())
    return trace / (objective.partitions * size(params) * objective.n_pairs)


def choose_damping(
    setting: float | str,
    objective: Objective,
    params: Params,
    batches: Batches,
    *,
    seed: int = 0,
) -> DampingChoice:
    """Resolve a setting: a number is kept, "auto" follows the rule above.

    Raises:
        ValueError: a negative or non-finite number, or another word.
    """
    if setting != "auto":
        if isinstance(setting, str) or not 0 <= setting < float("inf"):
            raise ValueError(f'damping must be "auto" or a finite number ≥ 0, got {setting!r}')
        return DampingChoice(float(setting), None, "as set")
    mean = mean_eigenvalue(objective, params, batches, seed=seed)
    floor, l2 = SHARE * mean, objective.l2
    if l2 > 0 and l2 >= floor:
        return DampingChoice(0.0, mean, f"l2 {l2:.3g} is at least {SHARE:g} of the mean eigenvalue {mean:.3g}")
    if floor == 0:
        return DampingChoice(1.0, mean, "the loss has no curvature at all; 1 keeps the inverse finite")
    return DampingChoice(floor - l2, mean, f"lifts l2 {l2:.3g} to {SHARE:g} of the mean eigenvalue {mean:.3g}")
