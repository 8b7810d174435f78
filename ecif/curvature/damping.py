"""The damping λ, given or chosen (`docs/design.md`, section 4). The rule needs no labels.

δ already bounds H from below by N·δ, and damping biases every influence towards plain gradients, so nothing is
added while δ is a fair share of the curvature. Otherwise δ + λ is lifted to that share of the mean eigenvalue:

    λ = max(0, SHARE · tr(G)/(P·N) − δ)

Where every pass over the data is dear, `largest_condition` bounds the condition number as well, and so the passes
(conjugate gradients need about √κ of them): λ = max(…, λ_max/(N·κ) − δ), with λ_max the largest eigenvalue of the
sample covariance of the draws, which errs upwards by at most tr(G)/probes.

G is the Gauss-Newton matrix without regulariser. Its trace is E‖Jᵀξ‖² over draws ξ of covariance ∇²_S L (a
Hutchinson estimate through the square root of G: never negative, and needing reverse mode only).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import torch

from ecif.batches import generator
from ecif.linearise import pull
from ecif.objective import Batches, Objective
from ecif.parameters import Params, row_dot, size

SHARE = 1e-2


@dataclass(frozen=True)
class DampingChoice:
    """λ per pair, the mean Gauss-Newton eigenvalue per pair (None: not measured), and why."""

    value: float
    mean_eigenvalue: float | None
    reason: str


@dataclass(frozen=True)
class Spectrum:
    """What a few draws tell of G: its mean and its largest eigenvalue, both per pair."""

    mean: float
    largest: float


_SAMPLE = 128  # batches: more change the mean by less than the draws do


def spectrum(objective: Objective, params: Params, batches: Batches, *, probes: int = 4, seed: int = 0) -> Spectrum:
    """Estimates of the eigenvalues of (1/R) Σ Jᵀ(∇²_S L)J, per pair, from seeded draws of that covariance: of the first
    128 batches, as membership is random."""
    drawn = torch.zeros(probes, size(params), dtype=torch.float64, device=next(iter(params.values())).device)
    trace, pairs = 0.0, 0
    for place, batch in enumerate(islice(batches(), _SAMPLE)):
        pairs += batch.size
        S, back = pull(objective, params, batch)
        roots = back(objective.loss.sample_root(S, probes, generator(seed, place)))
        trace += float(row_dot(roots, roots).mean())
        drawn += roots
    largest = float(torch.linalg.eigvalsh(drawn @ drawn.mT)[-1]) / probes
    return Spectrum(trace / (size(params) * pairs), largest / pairs)


def choose_damping(
    setting: float | str,
    objective: Objective,
    params: Params,
    batches: Batches,
    *,
    largest_condition: float = math.inf,
    seed: int = 0,
) -> DampingChoice:
    """Resolve a setting: a number stands, "auto" follows the rule above.

    Raises:
        ValueError: a negative or non-finite number, or another word.
    """
    if setting != "auto":
        if isinstance(setting, str) or not 0 <= setting < float("inf"):
            raise ValueError(f'damping must be "auto" or a finite number ≥ 0, got {setting!r}')
        return DampingChoice(float(setting), None, "as set")
    seen = spectrum(objective, params, batches, seed=seed)
    share, bound, l2 = SHARE * seen.mean, seen.largest / largest_condition, objective.l2
    floor = max(share, bound)
    if l2 > 0 and l2 >= floor:
        return DampingChoice(
            0.0, seen.mean, f"l2 {l2:.3g} is at least {SHARE:g} of the mean eigenvalue {seen.mean:.3g}"
        )
    if floor == 0:
        return DampingChoice(1.0, seen.mean, "the loss has no curvature at all; 1 keeps the inverse finite")
    reason = (
        f"lifts l2 {l2:.3g} to {SHARE:g} of the mean eigenvalue {seen.mean:.3g}"
        if share >= bound
        else f"lifts l2 {l2:.3g} to bound the condition number by {largest_condition:g}"
    )
    return DampingChoice(floor - l2, seen.mean, reason)
