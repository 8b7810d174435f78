"""Every pair's loss averaged along a fit: wrong pairs are learned late, so the mean tells more than the end.

Measured in `docs/decisions/0005-suspicion.md`. A model from random weights learns right pairs before wrong ones, but
first of all it must learn: a look then weighs as many epochs as have passed since the one before. One that knew
something starts well and only unlearns: there all looks weigh the same, and those stand closer at the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.heads import AtParams, stacked
from ecif.objective import Objective
from ecif.parameters import Params
from ecif.roles import positive
from ecif.solve.solution import State


def is_look(epoch: int) -> bool:
    """Whether every pair's loss is taken at the end of this epoch: 1, 2, 3, 4, 5, 7, 9, 12, 16, 22, …

    A fit may end long before its last epoch, and what tells wrong pairs apart happens early.
    """
    look = 1
    while look < epoch:
        look = max(look + 1, int(1.4 * look))
    return look == epoch


def look_weight(last: int, epoch: int, *, random_start: bool) -> int:
    """What a look after `epoch` epochs weighs in the mean, the one before having been after `last`."""
    return epoch - last if random_start else 1


@dataclass(frozen=True)
class WatchedLoss:
    """The weighted mean of N pairs' losses over the looks so far.

    Attributes:
        total: (N,) float64, the weighted sum; zeros before the first look.
        random_start: whether the model started from random weights.
        weight: of all looks together.
        last_look: the epoch of the latest, 0 before the first.
    """

    total: Tensor
    random_start: bool
    weight: int = 0
    last_look: int = 0

    @classmethod
    def start(cls, n: int, *, random_start: bool) -> WatchedLoss:
        """Before the first epoch."""
        return cls(torch.zeros(n, dtype=torch.float64), random_start)

    def look(self, epoch: int, losses: Tensor) -> WatchedLoss:
        """With the losses (N,) at the end of an epoch for which `is_look` holds."""
        weight = look_weight(self.last_look, epoch, random_start=self.random_start)
        return WatchedLoss(self.total + weight * losses, self.random_start, self.weight + weight, epoch)

    @property
    def mean(self) -> Tensor:
        """(N,) float64 up to the last look; zeros before the first."""
        return self.total / self.weight if self.weight else self.total

    def to_state(self) -> State:
        """Tensors only; none before the first look."""
        if not self.last_look:
            return {}
        return {"watched.total": self.total, "watched.looked": torch.tensor([self.last_look, self.weight])}

    @classmethod
    def from_state(cls, state: State, n: int, *, random_start: bool) -> WatchedLoss:
        """The inverse of `to_state`; other entries of the state are left alone."""
        if "watched.total" not in state:
            return cls.start(n, random_start=random_start)
        last_look, weight = state["watched.looked"].tolist()
        return cls(state["watched.total"], random_start, weight, last_look)


@torch.no_grad()
def pair_losses(
    objective: Objective, params: Params, batches: Iterable[tuple[Tensor, Batch]], n: int, partitions: int
) -> Tensor:
    """Pos_n of all n pairs, averaged over R partitions: (n,) float64 on the CPU.

    Args:
        batches: one pass over all partitions, each batch with the places (B,) of its pairs.
    """
    total = torch.zeros(n, dtype=torch.float64)
    if objective.closed_form(params):
        seen: list[Tensor] = []

        def of_pass() -> Iterator[Batch]:
            for places, batch in batches:
                seen.append(places)
                yield batch

        losses = [positive(AtParams.of(objective, params, stack).S).flatten() for stack in stacked(of_pass())]
        return total.index_add_(0, torch.cat(seen), torch.cat(losses).double().cpu()) / partitions
    for places, batch in batches:
        total[places] += positive(objective.similarity(params, batch)).double().cpu()
    return total / partitions


def mean_with_end(mean: Tensor, weight: int, end: Tensor, end_weight: int) -> Tensor:
    """(N,): the mean over looks of that total weight, with the loss at the end of the fit as one more look."""
    return (mean * weight + end * end_weight) / (weight + end_weight)
