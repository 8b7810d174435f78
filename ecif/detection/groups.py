"""Which of n items are equal: their numbers, and one of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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
        here = torch.arange(len(items), device=items.device)
        if len(self) == len(self.of):  # every item is its own group
            return here, items
        order, starts, counts = self._by_group
        mine = counts[self.of[items]]
        which = torch.repeat_interleave(here, mine)
        within = torch.arange(len(which), device=items.device) - (mine.cumsum(0) - mine)[which]
        return which, order[starts[self.of[items]][which] + within]

    @cached_property
    def _by_group(self) -> tuple[Tensor, Tensor, Tensor]:
        """The items in the order of their groups, where each group starts among them, and how many it has."""
        counts = torch.bincount(self.of, minlength=len(self))
        return torch.argsort(self.of, stable=True), counts.cumsum(0) - counts, counts

    def members(self) -> list[list[int]]:
        """The items of each group, in order."""
        lists: list[list[int]] = [[] for _ in range(len(self))]
        for item, number in enumerate(self.of.tolist()):
            lists[number].append(item)
        return lists
