"""Influence of every pair on the validation pairs nearest to it (`docs/design.md`, section 3).

    neighbour_influence_n = (1/k) Σ_{m ∈ N(n)} g_mᵀ H⁻¹ (∇Pos_n + ∇Neg_n),      g_m = ∇L_m,

L_m being the loss of validation pair m in its validation batch, and N(n) the k validation pairs whose embeddings of
image and text are nearest to those of pair n. It is what removing n does to the mean loss of its neighbours, as
influence is what it does to that of all validation pairs. A solve for every validation pair would be too many, so they
are put into groups of neighbours and g_m is the mean over the group of m. With as many groups as validation pairs this
is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.func import vjp, vmap

from ecif.batches import Batch, generator
from ecif.linearise import directions_at_once, pull
from ecif.objective import Objective
from ecif.parameters import Params, size
from ecif.similarity import normalise

NEAREST: Final = 10
"""k."""

FEW: Final = 16
"""Groups where every one costs a part of a pass over cached features."""

OF_TOWERS: Final = 4
"""Groups where every one goes through whole towers in each pass of a solve, which has one direction otherwise."""

_MOST: Final = 1024
_NUMBERS: Final = 1 << 24  # of the changes of S along all groups
_ROUNDS: Final = 20


def most_groups(batch_size: int, *, direct: bool, towers: bool = False) -> int:
    """Into how many groups validation pairs are put at most. direct: a solve costs no passes over the data. towers: a
    pass goes through whole towers."""
    if direct:
        return max(FEW, min(_MOST, _NUMBERS // batch_size**2))
    return OF_TOWERS if towers else FEW


def joint(texts: Tensor, images: Tensor) -> Tensor:
    """(n, 2E): both embeddings of every pair, (n, E) each, beside each other. Unit rows, so that their products are the
    mean of the two cosines."""
    return torch.cat([normalise(texts), normalise(images)], -1) / 2**0.5


@dataclass(frozen=True)
class Neighbourhood:
    """The validation pairs: joint (V, 2E), and of (V,) int64, the group of each; every group has a member."""

    joint: Tensor
    of: Tensor

    @classmethod
    @torch.no_grad()
    def of_pairs(cls, joint: Tensor, most: int, seed: int) -> Neighbourhood:
        """Groups of near pairs, at most `most`, by k-means on the sphere (Dhillon and Modha 2001) that starts as Arthur
        and Vassilvitskii 2007 do; or each pair by itself where there are no more.

        Raises:
            ValueError: no pair, or no group.
        """
        if len(joint) < 1 or most < 1:
            raise ValueError(f"{len(joint)} pairs cannot be put into {most} groups")
        if len(joint) <= most:
            return cls(joint, torch.arange(len(joint), device=joint.device))
        centres = _spread(joint, most, generator(seed, -70))
        of = (joint @ centres.mT).argmax(1)
        for _ in range(_ROUNDS):
            centres = normalise(torch.zeros_like(centres).index_add_(0, of, joint))
            before, of = of, (joint @ centres.mT).argmax(1)
            if torch.equal(of, before):
                break
        return cls(joint, torch.unique(of, return_inverse=True)[1])

    @property
    def groups(self) -> int:
        """How many there are."""
        return int(self.of.max()) + 1

    def gradients(self, objective: Objective, params: Params, batches: Iterable[Batch]) -> Tensor:
        """(C, P) float64: of each group the mean gradient of its pairs' own losses. Weighed by their sizes, the groups
        sum to V·∇L_val. batches: of all validation pairs, in their order."""
        total = torch.zeros(self.groups, size(params), dtype=torch.float64, device=self.of.device)
        sizes, first = torch.bincount(self.of), 0
        for batch in batches:
            own = self.of[first : first + batch.size]
            first += batch.size
            present, place = torch.unique(own, return_inverse=True)
            S, back = pull(objective, params, batch)
            weights = torch.zeros(len(present), batch.size, dtype=S.dtype, device=S.device)
            weights[place, torch.arange(batch.size, device=S.device)] = (1 / sizes[own]).to(S.dtype)
            reverse = vjp(objective.loss.pair_loss, S)[1]
            at_once = min(directions_at_once(size(params)), directions_at_once(batch.size**2))
            for which, some in zip(torch.split(present, at_once), torch.split(weights, at_once), strict=True):
                with torch.no_grad():
                    (cotangents,) = vmap(reverse)(some)
                total[which] += back(cotangents)
        return total

    @torch.no_grad()
    def mean_over_nearest(self, joint: Tensor, along_groups: Tensor, k: int = NEAREST) -> Tensor:
        """(B,): the mean of what pairs score along the groups (B, C), over the groups of their k nearest validation
        pairs, or of all where there are fewer. joint: (B, 2E)."""
        near = (joint.to(self.joint) @ self.joint.mT).topk(min(k, len(self.of)), dim=1, sorted=False).indices
        return along_groups.gather(1, self.of[near]).mean(1)


def _spread(joint: Tensor, count: int, g: torch.Generator) -> Tensor:
    """(count, 2E): pairs to begin with, each drawn the more likely the further it is from those before it."""
    chosen = [int(torch.randint(len(joint), (1,), generator=g))]
    furthest = torch.full((len(joint),), 2.0, dtype=torch.float64)
    while len(chosen) < count:
        furthest = furthest.minimum((1 - joint @ joint[chosen[-1]]).clamp(min=0).double().cpu())
        if float(furthest.sum()) <= 0:  # all others are equal to one of these
            break
        chosen.append(int(torch.multinomial(furthest, 1, generator=g)))
    return joint[torch.tensor(chosen, device=joint.device)]
