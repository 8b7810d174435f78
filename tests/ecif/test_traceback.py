"""Queries against plain autograd; relative influence against brute force."""

import math

import pytest
import torch
from torch import Tensor

from ecif import (
    Dense,
    GaussNewton,
    candidate_scores,
    flatten,
    query_gradients,
    query_losses,
    score_batch,
    unflatten,
)
from ecif.traceback import (
    QueryLoss,
    SpanProducts,
    influence_gram,
    normal_probes,
    probed_gram,
    relative_influence,
    relative_influence_from_products,
    role_gradients,
    span_relative_standard_error,
)
from tests.ecif.conftest import MakeWorld


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(columns: Tensor, g: Tensor) -> Tensor:
    """The largest first-order change of the loss by a move of norm 1 in the span: every angle tried."""
    basis = torch.linalg.qr(columns.T)[0]
    angle = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)
    moves = torch.stack([angle.cos(), angle.sin()], 1) @ basis.T
    return (moves @ g).max() / g.norm()


def test_it_is_the_most_a_move_in_the_span_can_do() -> None:
    spans, g = draw(12, 2, 7), draw(7, seed=1)
    answer = relative_influence(spans, g)
    for n in range(12):
        sign = torch.sign(-(spans[n].sum(0) @ g))
        assert float(answer[n]) == pytest.approx(float(sign * brute_force(spans[n], g)), abs=1e-6)


def test_lengths_do_not_matter_and_parallel_columns_are_one() -> None:
    spans, g = draw(5, 2, 7), draw(7, seed=1)
    scaled = spans * torch.tensor([1.0, 1e-4], dtype=torch.float64)[:, None]
    torch.testing.assert_close(relative_influence(scaled, g).abs(), relative_influence(spans, g).abs())
    one = torch.stack([spans[:, 0], 3 * spans[:, 0] + 1e-9 * spans[:, 1]], 1)
    cosine = -torch.cosine_similarity(spans[:, 0], g[None])
    torch.testing.assert_close(relative_influence(one, g), cosine, rtol=1e-6, atol=1e-6)
    alone = torch.stack([spans[:, 0], torch.zeros_like(spans[:, 0])], 1)
    torch.testing.assert_close(relative_influence(alone, g), cosine)
    opposed = torch.stack([3 * spans[:, 0], -spans[:, 0]], 1)
    torch.testing.assert_close(relative_influence(opposed, g), cosine)


def test_nothing_spanned_or_nothing_asked_is_zero() -> None:
    assert torch.equal(relative_influence(torch.zeros(3, 2, 4), torch.ones(4)), torch.zeros(3).double())
    assert torch.equal(relative_influence(draw(3, 2, 4), torch.zeros(4)), torch.zeros(3).double())


def test_many_gradients_share_the_products(make_world: MakeWorld) -> None:
    world = make_world(l2=1.0)
    batch = world.batches()[0]
    curvature = Dense.of(GaussNewton(world.objective, world.params, world.batches))
    gradients = role_gradients(world.objective, world.params, batch)
    influences = -curvature.solve(gradients.flatten(0, 1)).x.unflatten(0, (batch.size, 2))
    queries = draw(3, 220)
    answer = relative_influence(influences, queries)
    assert answer.shape == (3, batch.size)
    assert float(answer.abs().max()) <= 1
    for k in range(3):
        torch.testing.assert_close(answer[k], relative_influence(influences, queries[k]))
        moves = curvature.solve(gradients.sum(1)).x  # Δθ_n
        assert torch.equal(answer[k].sign(), (moves @ queries[k]).sign())
    gram = influences @ influences.mT
    products = torch.einsum("brp,kp->kbr", influences, queries)
    again = relative_influence_from_products(gram, products, queries.norm(dim=1))
    torch.testing.assert_close(again, answer)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_gradients_of_query_losses(make_world: MakeWorld, loss: QueryLoss) -> None:
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


def test_cross_entropy_and_margin_are_what_they_say() -> None:
    S = torch.tensor([[2.0, 1.0, 0.0]])
    true, predicted = torch.tensor([1]), torch.tensor([0])
    assert query_losses(S, true, predicted, "margin").item() == pytest.approx(1.0)
    assert query_losses(S, true, predicted, "cross_entropy").item() == pytest.approx(-S.log_softmax(1)[0, 1].item())


def test_probed_gram_matrices_are_unbiased(make_world: MakeWorld) -> None:
    world, k = make_world(l2=1.0), 4000
    batch = world.batches()[0]
    curvature = Dense.of(GaussNewton(world.objective, world.params, world.batches))
    exact = influence_gram(world.objective, world.params, batch, curvature)
    x = curvature.solve(normal_probes(world.params, k, seed=1)).x
    scores = score_batch(world.objective, world.params, batch, x)
    estimate = probed_gram(torch.stack([scores.positive, scores.negative], -1))
    lengths = exact.diagonal(dim1=-2, dim2=-1).sqrt()
    scale = lengths[:, :, None] * lengths[:, None, :]
    assert float(((estimate - exact) / scale).abs().max()) < 5 * (2 / k) ** 0.5
    torch.testing.assert_close(estimate, estimate.mT)


def test_lengths_of_spans_have_the_stated_error(make_world: MakeWorld) -> None:
    world, k = make_world(l2=1.0), 32
    batch = world.batches()[0]
    curvature = Dense.of(GaussNewton(world.objective, world.params, world.batches))
    exact = influence_gram(world.objective, world.params, batch, curvature).diagonal(dim1=-2, dim2=-1).sqrt()
    x = curvature.solve(normal_probes(world.params, 100 * k, seed=1)).x
    scores = score_batch(world.objective, world.params, batch, x)
    both = torch.stack([scores.positive, scores.negative], -1)
    estimates = torch.stack([probed_gram(some).diagonal(dim1=-2, dim2=-1).sqrt() for some in both.split(k)])
    off = (estimates / exact - 1).square().mean().sqrt()
    assert float(off) == pytest.approx(span_relative_standard_error(k), rel=0.1)


def test_the_most_responsible_pairs_come_first_whatever_the_batches() -> None:
    spans, queries = draw(6, 2, 7), draw(3, 7, seed=1)
    products, gram = torch.einsum("nrp,qp->qnr", spans, queries), spans @ spans.mT
    sums = SpanProducts.start(queries.norm(dim=1), 6, partitions=2)
    for places in (torch.tensor([4, 0, 2]), torch.tensor([5, 1, 3]), torch.arange(6)):
        sums.add(places, products[:, places])
    answer = sums.most_responsible(gram, top=2, among=5)
    truth = relative_influence(-spans[:5], queries)
    lowest = truth.sort(dim=1)
    torch.testing.assert_close(answer.relative_influence, lowest.values[:, :2])
    assert torch.equal(answer.places, lowest.indices[:, :2])
    torch.testing.assert_close(answer.influence, products.sum(-1).gather(1, answer.places))
    assert sums.most_responsible(gram, top=99, among=5).places.shape == (3, 5)
