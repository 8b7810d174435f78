"""Which of n items are equal: their numbers, and one of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """of: (n,) int64, the number of each item's group, from 0. first: (groups,) int64, the first item of each."""

    of: Tensor
    first: Tensor

    @classmethod
    def by(cls, values: Tensor) -> Groups:
        """Equal where the values (n,) are equal."""
        _, of = torch.unique(values, return_inverse=True)
        n = values.numel()
        first = torch.full((int(of.max()) + 1 if n else 0,), n, dtype=torch.int64, device=values.device)
        places = torch.arange(n, device=values.device)
        return cls(of, first.scatter_reduce(0, of, places, "amin"))

    def __len__(self) -> int:
        """How many groups there are."""
        return self.first.numel()

    def to(self, device: torch.device | str) -> Groups:
        """The same groups on another device."""
        return Groups(self.of.to(device), self.first.to(device))

    def number(self, item: int) -> int:
        """Of the group of an item."""
        return int(self.of[item])

    def mates(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """All items of the groups of `items` (k,), themselves included: (index into `items`, item), one row each."""
        order = torch.argsort(self.of, stable=True)
        counts = torch.bincount(self.of, minlength=len(self))
        starts = counts.cumsum(0) - counts
        mine = counts[self.of[items]]
        which = torch.repeat_interleave(torch.arange(len(items), device=items.device), mine)
        within = torch.arange(len(which), device=items.device) - (mine.cumsum(0) - mine)[which]
        return which, order[starts[self.of[items]][which] + within]

    def members(self) -> list[list[int]]:
        """The items of each group, in order."""
        lists: list[list[int]] = [[] for _ in range(len(self))]
        for item, number in enumerate(self.of.tolist()):
            lists[number].append(item)
        return lists
