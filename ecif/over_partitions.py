"""What is quadratic in a pair's gradients, where R partitions are averaged (`docs/design.md`, section 3).

In R partitions a pair meets R different batches and has R gradients g^r. The objective is their average, so the pair's
own gradient is ḡ = (1/R) Σ g^r, and its self-influence ḡᵀH⁻¹ḡ. The average of the R squares is larger, by how much g^r
differs between the partitions. So linear parts are averaged first and squared then; these functions do so for explicit
gradients, a bounded number of pairs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.curvature.base import Curvature
from ecif.objective import Objective
from ecif.parameters import Params, row_dot, size
from ecif.roles import Negative
from ecif.self_influence import pair_gradients
from ecif.traceback import role_gradients

PlacedBatches = Callable[[], Iterable[tuple[Tensor, Batch]]]
"""One pass over all batches of all partitions, each with the places of its pairs among the N."""

_NUMBERS = 2**25  # that averaged gradients may hold at once: 256 MiB


def self_influence_of(
    objective: Objective,
    params: Params,
    placed: PlacedBatches,
    pairs: Tensor,
    curvature: Curvature,
    mode: Negative = "exact",
) -> Tensor:
    """(m,) float64, ḡᵀH⁻¹ḡ of the pairs at these places (m,), through their gradients: for small P only."""

    def gradients(batch: Batch, some: Tensor) -> Tensor:
        return pair_gradients(objective, params, batch, mode, some)

    parts = []
    for some in torch.split(pairs, max(1, _NUMBERS // size(params))):
        mean = _mean_of(gradients, objective, params, placed, some)
        parts.append(row_dot(mean, curvature.solve(mean).x))
    return torch.cat(parts)


def influence_gram_of(
    objective: Objective,
    params: Params,
    placed: PlacedBatches,
    pairs: Tensor,
    curvature: Curvature,
    mode: Negative = "exact",
) -> Tensor:
    """(m, 2, 2) float64, IᵀI of the influence functions of the pairs at these places, as `traceback.influence_gram`."""

    def gradients(batch: Batch, some: Tensor) -> Tensor:
        return role_gradients(objective, params, batch, mode, some).flatten(1)

    parts = []
    for some in torch.split(pairs, max(1, _NUMBERS // (2 * size(params)))):
        mean = _mean_of(gradients, objective, params, placed, some, roles=2)
        solved = curvature.solve(mean.reshape(2 * len(some), -1)).x.reshape(len(some), 2, -1)
        parts.append(solved @ solved.mT)
    return torch.cat(parts)


def _mean_of(
    gradients: Callable[[Batch, Tensor], Tensor],
    objective: Objective,
    params: Params,
    placed: PlacedBatches,
    pairs: Tensor,
    roles: int = 1,
) -> Tensor:
    """(m, roles · P) float64: what `gradients` says of these pairs, averaged over the partitions."""
    device = next(iter(params.values())).device
    total = torch.zeros(len(pairs), roles * size(params), dtype=torch.float64, device=device)
    ordered, row = pairs.sort()
    for places, batch in placed():
        near = torch.searchsorted(ordered, places).clamp(max=len(ordered) - 1)
        (some,) = (ordered[near] == places).nonzero(as_tuple=True)  # of the batch
        if len(some):
            total[row[near[some]].to(device)] += gradients(batch, some.to(device)).double()
    return total / objective.partitions
