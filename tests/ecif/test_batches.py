import pytest
import torch

from ecif import Batch, cut_batches, plan_batches


def test_every_partition_is_a_permutation_and_more_partitions_keep_the_first() -> None:
    plan = plan_batches(101, 8, 5, seed=3)
    assert plan.shape == (5, 101)
    assert plan.dtype == torch.int64
    assert torch.equal(plan.sort(1).values, torch.arange(101).expand(5, -1))
    assert torch.equal(plan_batches(101, 8, 2, seed=3), plan[:2])
    assert not torch.equal(plan[0], plan[1])
    assert not torch.equal(plan_batches(101, 8, 1, seed=4)[0], plan[0])


def test_the_remainder_is_one_smaller_batch() -> None:
    cuts = cut_batches(torch.arange(20), 8)
    assert [len(cut) for cut in cuts] == [8, 8, 4]
    assert torch.equal(torch.cat(cuts), torch.arange(20))


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
