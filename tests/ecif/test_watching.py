"""Losses averaged along a fit, on two pairs."""

import pytest
import torch

from ecif.fit.watching import WatchedLoss, is_look, look_weight, mean_with_end


def test_looks_thin_out() -> None:
    assert [epoch for epoch in range(1, 32) if is_look(epoch)] == [1, 2, 3, 4, 5, 7, 9, 12, 16, 22, 30]


@pytest.mark.parametrize(("random_start", "weights"), [(True, (1, 1, 3)), (False, (1, 1, 1))])
def test_the_mean_weighs_epochs_after_a_random_start_and_looks_alike_otherwise(
    random_start: bool, weights: tuple[int, int, int]
) -> None:
    watched, losses = (
        WatchedLoss.start(2, random_start=random_start),
        torch.tensor([[4.0, 1.0], [2.0, 1.0], [1.0, 0.5]]),
    )
    assert watched.mean.tolist() == [0, 0]
    for epoch, loss in zip((1, 2, 5), losses, strict=True):
        watched = watched.look(epoch, loss)
    truth = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    torch.testing.assert_close(watched.mean, truth.double())
    assert (watched.weight, watched.last_look) == (sum(weights), 5)
    end_weight = look_weight(watched.last_look, 8, random_start=random_start)
    assert end_weight == (3 if random_start else 1)
    ended = mean_with_end(watched.mean, watched.weight, torch.tensor([0.0, 0.0]), end_weight)
    torch.testing.assert_close(ended, truth.double() * sum(weights) / (sum(weights) + end_weight))


def test_it_goes_on_from_its_state() -> None:
    first = WatchedLoss.start(2, random_start=True).look(1, torch.tensor([4.0, 1.0]))
    state = first.to_state() | {"another": torch.zeros(1)}
    again = WatchedLoss.from_state(state, 2, random_start=True)
    later = torch.tensor([2.0, 3.0])
    assert torch.equal(again.look(4, later).mean, first.look(4, later).mean)
    assert WatchedLoss.start(2, random_start=True).to_state() == {}
    assert WatchedLoss.from_state({}, 2, random_start=True).last_look == 0
