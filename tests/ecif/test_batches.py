import pytest
import torch

from ecif import Batch, cut_batches, plan_batches
from ecif.batches import pairs_before


def test_every_partition_is_a_permutation_and_more_partitions_keep_the_first() -> None:
    plan = plan_batches(101, 8, 5, seed=3)
    assert plan.shape == (5, 101)
    assert plan.dtype == torch.int64
    assert torch.equal(plan.sort(1).values, torch.arange(101).expand(5, -1))
    assert torch.equal(plan_batches(101, 8, 2, seed=3), plan[:2])
    assert not torch.equal(plan[0], plan[1])
    assert not torch.equal(plan_batches(101, 8, 1, seed=4)[0], plan[0])


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(20, 8, [7, 7, 6]), (17, 8, [6, 6, 5]), (16, 8, [8, 8]), (3, 8, [3]), (5, 2, [2, 2, 1]), (1, 2, [1]), (0, 2, [0])],
)
def test_sizes_of_batches_differ_by_at_most_one(n: int, batch_size: int, sizes: list[int]) -> None:
    cuts = cut_batches(torch.arange(n), batch_size)
    assert [len(cut) for cut in cuts] == sizes
    assert torch.equal(torch.cat(cuts), torch.arange(n))
    assert [pairs_before(place, n, len(cuts)) for place in range(len(cuts) + 1)] == [0, *torch.tensor(sizes).cumsum(0)]


@pytest.mark.parametrize(
    ("arguments", "word"), [((0, 8, 1), "pair"), ((9, 1, 1), "batch_size"), ((9, 8, 0), "partitions")]
)
def test_senseless_plans_are_refused(arguments: tuple[int, int, int], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        plan_batches(*arguments, seed=0)


def test_a_batch_refuses_fields_that_do_not_fit() -> None:
    x, g = torch.zeros(3, 2), torch.arange(3)
    assert Batch(x, x, g, g).to("cpu").size == 3
    with pytest.raises(ValueError, match="images"):
        Batch(x[:2], x, g, g)
    with pytest.raises(ValueError, match="caption_group"):
        Batch(x, x, g[:2], g)
    with pytest.raises(ValueError, match="image_group"):
        Batch(x, x, g, g.float())
    with pytest.raises(ValueError, match="at least one"):
        Batch(x[:0], x[:0], g[:0], g[:0])
