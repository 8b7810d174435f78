"""How much each column tells: a logistic regression on normal scores that learns from injected mismatches.

Columns come in units of their own, so each is ranked and its ranks are mapped to a normal distribution. Weights are not
negative (every column is turned so that high is suspicious, and columns that say nearly the same would otherwise be set
against each other) and shrunk. The user's own pairs count as right though some are not: a share of wrong ones among
them scales the odds and leaves the order (Elkan and Noto 2008, *Learning classifiers from only positive and unlabeled
data*).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from ecif.detection.suspicion import fractional_ranks

SHRINKAGE: Final = 3e-3
"""Of the squared weights, beside the mean logistic loss."""

_STEPS: Final = 200


@dataclass(frozen=True)
class Calibrator:
    """weights: of the columns by name, ≥ 0. auroc: how well they tell injected pairs from the user's own."""

    weights: dict[str, float]
    auroc: float

    @classmethod
    def fit(cls, columns: Mapping[str, Tensor], injected: Tensor) -> Calibrator:
        """columns: (n,) each, high = suspicious. injected: (n,) bool, some of both.

        Raises:
            ValueError: no column, or only one of the two classes.
        """
        if not columns or not bool(injected.any()) or bool(injected.all()):
            raise ValueError("a calibrator needs columns, injected pairs and others")
        scores, target = torch.stack([normal_scores(column) for column in columns.values()], 1), injected.double()
        free = torch.full((scores.shape[1],), -2.0, dtype=torch.float64, device=scores.device, requires_grad=True)
        offset = torch.zeros(1, dtype=torch.float64, device=scores.device, requires_grad=True)
        search = torch.optim.LBFGS([free, offset], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def loss() -> float:
            search.zero_grad()
            weights = softplus(free)
            value = binary_cross_entropy_with_logits(scores @ weights + offset, target)
            value = value + SHRINKAGE * weights.square().sum()
            value.backward()  # type: ignore[no-untyped-call]  # torch's own
            return float(value.detach())

        search.step(loss)  # type: ignore[no-untyped-call]  # torch's own
        weights = softplus(free).detach()
        return cls(dict(zip(columns, weights.tolist(), strict=True)), auroc(scores @ weights, injected))

    def contributions(self, columns: Mapping[str, Tensor]) -> Tensor:
        """What each column adds to the suspicion, (n, columns) float64; their sum orders the pairs."""
        return torch.stack([weight * normal_scores(columns[name]) for name, weight in self.weights.items()], 1)


def normal_scores(column: Tensor) -> Tensor:
    """(n,) float64: the ranks of (n,) as quantiles of a normal distribution. Equal values share their mean rank."""
    scores: Tensor = torch.special.ndtri(fractional_ranks(column))
    return scores


def normal_scores_among(column: Tensor, reference: Tensor) -> Tensor:
    """(n,) float64: what the normal scores of `reference` (m,) say of other values (n,), linear between and beyond
    them, so that order is kept."""
    known, scores = reference.double().sort().values, normal_scores(reference).sort().values
    known, place = torch.unique_consecutive(known, return_inverse=True)
    at = torch.zeros_like(known).scatter_reduce(0, place, scores, "mean", include_self=False)
    if len(known) < 2:
        return torch.zeros_like(column, dtype=torch.float64)
    values = column.double()
    right = torch.searchsorted(known, values).clamp(1, len(known) - 1)
    slope = (at[right] - at[right - 1]) / (known[right] - known[right - 1])
    # Beyond what is known at the rate of the whole: the gap between the last two may be any.
    beyond = (at[-1] - at[0]) / (known[-1] - known[0])
    inside = at[right - 1] + slope * (values - known[right - 1])
    lifted = torch.where(values > known[-1], at[-1] + beyond * (values - known[-1]), inside)
    return torch.where(values < known[0], at[0] + beyond * (values - known[0]), lifted)


def auroc(scores: Tensor, positive: Tensor) -> float:
    """The chance that a positive pair scores above another; ties count half. scores (n,), positive (n,) bool."""
    ranks = fractional_ranks(scores) * (scores.numel() + 1)
    count = int(positive.sum())
    least = count * (count + 1) / 2
    return float((ranks[positive].sum() - least) / (count * (scores.numel() - count)))
