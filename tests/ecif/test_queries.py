"""The losses of queries, and their gradients, against plain autograd."""

import pytest
import torch

from ecif import candidate_scores, flatten, query_gradients, query_losses, unflatten


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_gradients_of_query_losses(make_world, loss):
    world = make_world()
    batch = next(iter(world.batches()))
    images, candidates = batch.images[:3], batch.texts[:5]
    true, predicted = torch.tensor([0, 1, 4]), torch.tensor([2, 1, 0])
    given = (world.objective, world.params, images, candidates)
    gradients = query_gradients(*given, true, predicted, loss)
    for q in range(3):
        theta = flatten(world.params).detach().requires_grad_()
        S = candidate_scores(world.objective, unflatten(theta, world.params), images, candidates)
        (truth,) = torch.autograd.grad(query_losses(S, true, predicted, loss)[q], theta)
        torch.testing.assert_close(gradients[q], truth, rtol=1e-4, atol=1e-5)


def test_cross_entropy_and_margin_are_what_they_say():
    S = torch.tensor([[2.0, 1.0, 0.0]])
    true, predicted = torch.tensor([1]), torch.tensor([0])
    assert query_losses(S, true, predicted, "margin").item() == pytest.approx(1.0)
    assert query_losses(S, true, predicted, "cross_entropy").item() == pytest.approx(-S.log_softmax(1)[0, 1].item())
