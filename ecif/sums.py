"""Sums over the batches of a pass, of the same bits whoever makes which part (decision 43, `docs/decisions/`).

A pass is cut into leaves of 16 batches, and leaves are added two by two, ((0+1)+(2+3))+…: a tree whose shape depends
on how many there are. An aligned run of 2^j leaves is a subtree of it, so that the sum of such runs' sums is the sum of
all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

from torch import Tensor

from ecif.batches import Batch
from ecif.parameters import Params

if TYPE_CHECKING:
    from ecif.objective import Objective  # which imports this file

LEAF = 16
"""Batches in a leaf."""

Sums = dict[str, Tensor]


class Term(ABC):
    """What is summed. A dataclass of tensors and whole numbers, so that it can be written down and told to others."""

    @abstractmethod
    def of(self, objective: Objective, params: Params, batches: Iterable[Batch], first: int) -> Sums:
        """The sum over some batches of a pass, the first of which is its number `first`, in new tensors; over no batch
        it is 0."""


class Pass(ABC):
    """One pass over the data that has its own way to sums over it."""

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """All its batches in order."""

    @abstractmethod
    def summed(self, term: Term, objective: Objective, params: Params) -> Sums:
        """The sum over all batches, equal to the bit to `total` of their leaves."""


def summed(term: Term, objective: Objective, params: Params, batches: Iterable[Batch]) -> Sums:
    """The sum of a term over one pass."""
    if isinstance(batches, Pass):
        return batches.summed(term, objective, params)
    return total(term, objective, params, batches)


def total(term: Term, objective: Objective, params: Params, batches: Iterable[Batch], first: int = 0) -> Sums:
    """The sum over batches, the first of which is the number `first` of its pass and begins a leaf, made here."""
    tree, place, waiting = Tree(), first, iter(batches)
    for ahead in waiting:
        leaf = chain([ahead], islice(waiting, LEAF - 1))
        tree.add(term.of(objective, params, leaf, place))
        deque(leaf, maxlen=0)  # of one that was not read to its end
        place += LEAF
    return term.of(objective, params, (), first) if tree.empty else tree.total()


class Tree:
    """The sum of sums that come in their order, of which it holds as many as the tree has levels."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Sums]] = []

    @property
    def empty(self) -> bool:
        return not self._waiting

    def add(self, sums: Sums) -> None:
        """The next one. Its tensors are the tree's from here on."""
        level = 0
        while self._waiting and self._waiting[-1][0] == level:
            sums, level = _added(self._waiting.pop()[1], sums), level + 1
        self._waiting.append((level, sums))

    def total(self) -> Sums:
        """The sum of all; there must be one at least. The tree is empty then."""
        sums = self._waiting.pop()[1]
        while self._waiting:
            sums = _added(self._waiting.pop()[1], sums)
        return sums


def _added(sums: Sums, others: Sums) -> Sums:
    return {name: tensor.add_(others[name]) for name, tensor in sums.items()}
