"""Every solver against the dense truth, curvature × dtype × partitions."""

import pytest
import torch

from ecif import (
    Dense,
    GaussNewton,
    Hessian,
    Identity,
    NegativeCurvature,
    choose_damping,
    dense_matrix,
    flatten,
    spectrum,
    unflatten,
)
from ecif.curvature.loss_curvature import loss_curvature, sample_root
from ecif.seeds import generator


def dense_truth(world, kind, damping):
    """The Hessian, or JᵀCJ, written out by autograd from the definition."""
    flat = flatten(world.params).double()
    ridge = world.n * (world.l2 + damping)
    total = torch.zeros(220, 220, dtype=torch.float64)
    for batch in world.batches():
        images, texts = batch.images.double(), batch.texts.double()
        batch = type(batch)(images, texts, batch.caption_group, batch.image_group)
        like = {name: tensor.double() for name, tensor in world.params.items()}

        def similarity(theta, batch=batch, like=like):
            return world.objective.similarity(unflatten(theta, like), batch)

        def loss(s):
            return -(s.log_softmax(1) + s.log_softmax(0)).diagonal().sum()

        if kind is Hessian:
            total += torch.func.hessian(lambda t, S=similarity, loss=loss: loss(S(t)))(flat)
        else:
            J = torch.func.jacrev(similarity)(flat).flatten(0, 1)
            C = torch.func.hessian(loss)(similarity(flat)).reshape(J.shape[0], J.shape[0])
            total += J.T @ C @ J
    return total / world.partitions + ridge * torch.eye(220, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
def test_matrix_and_solution_match_the_dense_ones(make_world, kind, partitions, dtype):
    world = make_world(dtype=dtype, partitions=partitions, l2=1.0)
    damping = 20.0 if kind is Hessian else 0.5  # the parameters are not at a minimum
    H = dense_truth(world, kind, damping)
    matrix = kind(world.objective, world.params, world.batches, damping=damping, tolerance=1e-5)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(dense_matrix(matrix), H, **close)
    rhs = torch.randn(4, 220, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rhs[2] = 0
    truth = torch.linalg.solve(H, rhs.T).T
    for solver in (matrix, Dense.of(matrix)):
        solution = solver.solve(rhs)
        assert solution.converged
        assert float(solution.relative_residual.max()) <= 1e-5
        torch.testing.assert_close(solution.x, truth, rtol=1e-4, atol=1e-4 * float(truth.abs().max()))
    solution = matrix.solve(rhs)
    eigenvalues = torch.linalg.eigvalsh(H)
    low, high = solution.eigenvalue_range
    assert float(eigenvalues[0]) * (1 - 1e-4) <= low < high <= float(eigenvalues[-1]) * (1 + 1e-4)
    assert high > 0.9 * float(eigenvalues[-1])


def test_the_identity_is_tracin():
    rhs = torch.randn(2, 5)
    solution = Identity().solve(rhs)
    assert torch.equal(solution.x, rhs)
    assert solution.converged


def test_negative_curvature_is_an_error_that_says_what_to_do(make_world):
    world = make_world(l2=0.0)
    rhs = torch.randn(2, 220, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = Hessian(world.objective, world.params, world.batches)
    assert float(torch.linalg.eigvalsh(dense_matrix(matrix))[0]) < -1e-3
    for attempt in (lambda: matrix.solve(rhs), lambda: Dense.of(matrix)):
        with pytest.raises(NegativeCurvature, match="gauss_newton") as caught:
            attempt()
        assert caught.value.curvature < 0


def test_gauss_newton_is_positive_semi_definite_where_the_hessian_is_not(make_world):
    world = make_world(l2=0.0)
    matrix = GaussNewton(world.objective, world.params, world.batches)
    assert float(torch.linalg.eigvalsh(dense_matrix(matrix))[0]) > -1e-9


def test_sampled_labels_have_the_covariance_of_the_loss(make_world):
    world = make_world()
    S = world.objective.similarity(world.params, world.batches()[0]).detach()[:4, :4]
    draws = sample_root(S, 40_000, generator(0, 0)).flatten(1)
    basis = torch.eye(16, dtype=S.dtype).reshape(16, 4, 4)
    truth = loss_curvature(S, basis).flatten(1)
    torch.testing.assert_close(draws.T @ draws / len(draws), truth, rtol=0.05, atol=0.01)
    torch.testing.assert_close(draws.mean(0), torch.zeros_like(draws[0]), rtol=0, atol=0.02)


def test_automatic_damping_lifts_a_weak_l2_only(make_world):
    world = make_world(l2=0.0)
    given = (world.objective, world.params, world.batches)
    trace = float(dense_matrix(GaussNewton(*given)).trace())
    assert spectrum(*given, probes=400).mean == pytest.approx(trace / (220 * 24), rel=0.05)
    choice = choose_damping("auto", *given)
    assert choice.value == pytest.approx(0.01 * choice.mean_eigenvalue)
    assert "mean eigenvalue" in choice.reason
    strong = make_world(l2=1.0)
    assert choose_damping("auto", strong.objective, strong.params, strong.batches).value == 0
    assert choose_damping(0.25, *given).value == 0.25
    for bad in (-1.0, float("nan"), "strong"):
        with pytest.raises(ValueError, match="damping"):
            choose_damping(bad, *given)
    lone = make_world(n=1, l2=0.0, duplicates=False)
    assert choose_damping("auto", lone.objective, lone.params, lone.batches).value == 1
