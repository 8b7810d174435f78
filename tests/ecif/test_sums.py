"""Sums over leaves: the tree has one shape, whoever makes which part of it."""

from collections.abc import Iterable

import pytest
import torch

from ecif import Batch, Objective
from ecif.parameters import Params
from ecif.sums import LEAF, Sums, Term, Tree, total


class Numbers(Term):
    """The sum of what stands in the batches, one by one in float32: it depends on its order."""

    def of(self, objective: Objective, params: Params, batches: Iterable[Batch], first: int) -> Sums:
        sum_ = torch.zeros((), dtype=torch.float32)
        for batch in batches:
            sum_ = sum_ + batch.texts.sum()
        return {"sum": sum_}


def _pass(count: int) -> list[Batch]:
    g = torch.Generator().manual_seed(count)
    numbers = torch.randn(count, generator=g)
    group = torch.zeros(1, dtype=torch.int64)
    return [Batch(number.view(1, 1), number.view(1, 1), group, group) for number in numbers]


def _sum(batches: list[Batch], first: int = 0) -> float:
    objective = Objective(lambda *_: (torch.zeros(1, 1), torch.zeros(1, 1)), 1.0, 0.0, {"w": torch.zeros(1)}, 1)
    return float(total(Numbers(), objective, {}, batches, first)["sum"])


@pytest.mark.parametrize("leaves", [1, 2, 3, 5, 8, 11, 13, 31])
@pytest.mark.parametrize("run", [1, 2, 4, 8])
def test_aligned_runs_of_leaves_make_the_same_bits(leaves: int, run: int) -> None:
    batches = _pass(leaves * LEAF - 3)
    parts = Tree()
    for first in range(0, len(batches), run * LEAF):
        parts.add({"sum": torch.tensor(_sum(batches[first : first + run * LEAF], first))})
    assert float(parts.total()["sum"]) == _sum(batches)


def test_other_runs_would_not() -> None:
    batches = _pass(31 * LEAF)
    parts = Tree()
    for first in range(0, len(batches), 3 * LEAF):
        parts.add({"sum": torch.tensor(_sum(batches[first : first + 3 * LEAF], first))})
    assert float(parts.total()["sum"]) != _sum(batches)


def test_the_sum_over_no_batch_is_0() -> None:
    assert _sum([]) == 0
