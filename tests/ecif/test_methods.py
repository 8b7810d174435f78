from functools import partial

import pytest
import torch
from torch import Tensor

from ecif import Batch, NegativeCurvature, at_once, flatten, normalise, score_batch, unflatten
from ecif.curvature.ekfac import Ekfac
from ecif.curvature.projection import Projection
from ecif.methods import (
    ekfac_influence,
    lemon,
    loss_against_all,
    tracin,
    trak_direction,
    trak_kernel,
)
from ecif.traceback import role_gradients
from tests.ecif.conftest import MakeHeads, MakeWorld, World


def auroc(scores: Tensor, wrong: Tensor) -> float:
    return float((scores[wrong][:, None] > scores[~wrong][None, :]).double().mean())


def test_tracin_sums_positive_inner_products_over_checkpoints(make_world: MakeWorld) -> None:
    world = make_world()
    batch = world.batches()[0]
    checkpoints = [world.params, {name: 1.1 * tensor for name, tensor in world.params.items()}]
    gradients = [torch.randn(220, dtype=torch.float64) for _ in checkpoints]
    truth = sum(
        rate * role_gradients(world.objective, params, batch)[:, 0] @ g
        for params, rate, g in zip(checkpoints, (0.5, 0.1), gradients, strict=True)
    )
    torch.testing.assert_close(tracin(world.objective, checkpoints, (0.5, 0.1), gradients, batch), truth)


def test_ekfac_influence_is_the_positive_part(make_world: MakeWorld) -> None:
    world = make_world(l2=1.0)
    curvature = Ekfac.of(world.objective, world.params, world.batches)
    batch, g = world.batches()[0], torch.randn(220, dtype=torch.float64)
    w = curvature.solve(g[None]).x
    scores = ekfac_influence(world.objective, world.params, batch, curvature, g)
    torch.testing.assert_close(scores, score_batch(world.objective, world.params, batch, w).positive[0])


def margins(world: World, batch: Batch, theta: Tensor) -> Tensor:
    S = world.objective.similarity(unflatten(theta, world.params), batch)
    own = torch.eye(len(S), dtype=torch.bool)
    return torch.stack([x.diagonal() - x.masked_fill(own, -1e30).logsumexp(1) for x in (S, S.mT)], 1)


def test_trak_is_the_positive_role_through_its_margins(make_world: MakeWorld) -> None:
    world = make_world(partitions=2)
    projection = Projection.draw(world.params, 5, seed=0)
    kernel = torch.zeros(projection.size, projection.size, dtype=torch.float64)
    theta = flatten(world.params)
    for batch in world.batches():
        f = margins(world, batch, theta)
        weight = (f.sigmoid() * (-f).sigmoid()).flatten()  # p(1 − p)
        features = projection.down(torch.func.jacrev(partial(margins, world, batch))(theta)).flatten(0, 1)
        kernel += (features * weight[:, None]).mT @ features / 2
    given = (world.objective, world.params, world.batches, projection)
    torch.testing.assert_close(trak_kernel(*given, draws=16), kernel)  # as many as a batch has margins: exact
    drawn = trak_kernel(*given, draws=15, seed=1)
    drawn = sum((trak_kernel(*given, draws=15, seed=seed) for seed in range(2, 41)), drawn) / 40
    assert float((drawn - kernel).norm() / kernel.norm()) < 0.1

    g = torch.randn(2, 220, dtype=torch.float64)
    w = trak_direction(projection, kernel, g, 7.2)
    batch = world.batches()[0]
    f, J = margins(world, batch, theta), torch.func.jacrev(partial(margins, world, batch))(theta)
    chained = -projection.down(((-f).sigmoid()[..., None] * J).sum(1))  # −Σ (1 − p)·Π∇f
    truth = projection.down(g) @ torch.linalg.inv(kernel + 7.2 * torch.eye(len(kernel))) @ chained.T
    torch.testing.assert_close(score_batch(world.objective, world.params, batch, w).positive, truth)


def test_trak_refuses_a_ridge_that_is_lost_in_rounding(make_world: MakeWorld) -> None:
    world = make_world()
    projection = Projection.draw(world.params, 10, seed=0)
    kernel = trak_kernel(world.objective, world.params, world.batches, projection, draws=16)
    g = torch.randn(1, 220, dtype=torch.float64)
    with pytest.raises(NegativeCurvature):
        trak_direction(projection, kernel, g, 1e-30)
    with pytest.raises(ValueError, match="l2 or damping"):
        trak_direction(projection, kernel, g, 0.0)


def test_lemon_is_its_definition_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(40, 6, generator=g).double()) for _ in range(2))

    def d(a: Tensor, b: Tensor) -> Tensor:
        return 1 - a @ b

    def nearest(side: Tensor, i: int) -> list[int]:
        return sorted((j for j in range(40) if j != i), key=lambda j: float(d(side[i], side[j])))[:7]

    truth = []
    for i in range(40):
        total = d(x[i], y[i])
        for here, there in ((x, y), (y, x)):
            near = nearest(here, i)
            terms = [
                d(there[i], there[j]) * torch.exp(-0.1 * d(here[i], here[j])) * torch.exp(-5 * d(x[j], y[j]))
                for j in near
            ]
            total = total + 5 * sum(terms) / 7
        truth.append(total)
    for elements in (1 << 22, 9 * 40):
        monkeypatch.setitem(at_once._ELEMENTS, "cpu", elements)
        torch.testing.assert_close(lemon(3 * x, 2 * y, k=7), torch.stack(truth))
    with pytest.raises(ValueError, match="alike"):
        lemon(x, y[:3])


def test_lemon_averages_over_equal_captions_whatever_their_order() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=g)
    y = torch.randn(3, 6, generator=g)[torch.randint(3, (60,), generator=g)]  # twenty of each caption, and k = 7
    scores, order = lemon(x, y, k=7), torch.randperm(60, generator=g)
    torch.testing.assert_close(lemon(x[order], y[order], k=7), scores[order])
    # With three values, text space knows no neighbours but all pairs of the same caption.
    x, y = normalise(x.double()), normalise(y.double())
    own = 1 - (x * y).sum(1)
    for i in range(3):
        same = [j for j in range(60) if j != i and torch.equal(y[j], y[i])]
        back = torch.stack([(1 - x[i] @ x[j]) * torch.exp(-5 * own[j]) for j in same]).mean()
        across = lemon(x, y, k=7, gamma=0.0)[i]
        torch.testing.assert_close(lemon(x, y, k=7)[i], across + 5 * back)


def test_the_loss_against_all_counts_every_caption_once() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(12, 5, generator=g).double()) for _ in range(2))
    groups = torch.tensor([5, 5, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11])
    y[1] = y[0]
    truth = -(20 * x @ y[[0, *range(2, 12)]].T).log_softmax(1)[range(12), [0, *range(11)]]
    for chunk in (100, 5):
        torch.testing.assert_close(loss_against_all(x, y, groups, scale=20.0, chunk=chunk), truth)


def test_they_find_exchanged_captions(make_heads: MakeHeads) -> None:
    world = make_heads(0, width=16)
    truth = make_heads(0, width=16, wrong=0.0)
    x, y = world.images[:256], world.texts[:256]
    wrong = (y != truth.texts[:256]).any(1)
    for scores in (lemon(x, y), loss_against_all(x, y, torch.arange(256), scale=10.0)):
        assert auroc(scores, wrong) > 0.9
