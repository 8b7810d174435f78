"""Where the two exact matrices differ, and the square root that labels are sampled by."""

import pytest
import torch

from ecif import Dense, GaussNewton, Hessian, NegativeCurvature, dense_matrix
from ecif.batches import generator
from ecif.losses import SIGMOID, SOFTMAX, Loss
from tests.ecif.conftest import MakeWorld


def test_negative_curvature_is_an_error_that_says_what_to_do(make_world: MakeWorld) -> None:
    world = make_world(l2=0.0)
    rhs = torch.randn(2, 220, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = Hessian(world.objective, world.params, world.batches)
    assert float(torch.linalg.eigvalsh(dense_matrix(matrix))[0]) < -1e-3
    for attempt in (lambda: matrix.solve(rhs), lambda: Dense.of(matrix)):
        with pytest.raises(NegativeCurvature, match="gauss_newton") as caught:
            attempt()
        assert caught.value.curvature < 0


def test_gauss_newton_is_positive_semi_definite_where_the_hessian_is_not(make_world: MakeWorld) -> None:
    world = make_world(l2=0.0)
    matrix = GaussNewton(world.objective, world.params, world.batches)
    assert float(torch.linalg.eigvalsh(dense_matrix(matrix))[0]) > -1e-9


@pytest.mark.parametrize("loss", [SOFTMAX, SIGMOID], ids=lambda loss: loss.name)
def test_draws_have_the_covariance_of_the_loss(make_world: MakeWorld, loss: Loss) -> None:
    world = make_world(loss=loss)
    S = world.objective.similarity(world.params, world.batches()[0]).detach()[:4, :4]
    draws = loss.sample_root(S, 40_000, generator(0, 0)).flatten(1)
    basis = torch.eye(16, dtype=S.dtype).reshape(16, 4, 4)
    truth = loss.curvature(S, basis).flatten(1)
    torch.testing.assert_close(draws.T @ draws / len(draws), truth, rtol=0.05, atol=0.01)
    torch.testing.assert_close(draws.mean(0), torch.zeros_like(draws[0]), rtol=0, atol=0.02)
