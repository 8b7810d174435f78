"""The sigmoid loss against its definition: what leaves with a pair, derivatives, curvature, a trained bias."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ecif import (
    Batch,
    FitSettings,
    GaussNewton,
    Hessian,
    Objective,
    dense_matrix,
    exclude,
    false_negatives,
    fit,
    flatten,
    rank_embeddings,
    score_removals,
    unflatten,
)
from ecif.curvature.projection import Projection
from ecif.losses import SIGMOID
from ecif.methods import tracin, trak_kernel
from ecif.objective import LOGIT_BIAS, LOGIT_SCALE, starting_logit_scale
from ecif.roles import Negative
from ecif.scoring import removal_gradient
from tests.ecif.conftest import MakeWorld
from tests.ecif.test_roles import draw, keep


def loss(S: Tensor) -> Tensor:
    """−Σ_{n,m} log sigmoid(z S) cell by cell; excluded cells are no part of it."""
    total = S.new_zeros(())
    for n, row in enumerate(S):
        for m, logit in enumerate(row):
            if bool(logit.detach() > -1e29):
                total = total + torch.log1p(torch.exp(-logit if n == m else logit))
    return total


MATRICES = {
    "plain": draw(8) - 2,
    "wide": draw(8, 30.0),
    "masked": exclude(draw(8), false_negatives(torch.tensor([0, 1, 0, 2, 3, 3, 3, 4]), torch.arange(8))),
    "one": draw(1),
}


@pytest.mark.parametrize("mode", ["exact", "taylor"])
@pytest.mark.parametrize("name", MATRICES)
def test_both_roles_are_what_deletion_takes_from_the_loss(name: str, mode: Negative) -> None:
    S = MATRICES[name]
    B = len(S)
    deleted = [loss(S) - loss(keep(S, torch.arange(B) != n)) for n in range(B)]
    torch.testing.assert_close(SIGMOID.positive(S) + SIGMOID.negative(S, mode), torch.stack(deleted))
    own = torch.stack([loss(S[n : n + 1, n : n + 1]) for n in range(B)])
    torch.testing.assert_close(SIGMOID.positive(S), own)
    torch.testing.assert_close(SIGMOID.pair_loss(S), own + 0.5 * SIGMOID.negative(S))
    torch.testing.assert_close(SIGMOID.pair_loss(S).sum(), loss(S))
    for removed in (torch.arange(B) % 2 == 0, torch.ones(B).bool(), torch.zeros(B).bool()):
        torch.testing.assert_close(SIGMOID.removal(S, removed), loss(S) - loss(keep(S, ~removed)))


@pytest.mark.parametrize("name", MATRICES)
def test_derivatives_are_those_of_torch(name: str) -> None:
    S = MATRICES[name]
    dS = torch.stack([draw(len(S), seed=i) for i in range(3)])
    dS = dS.masked_fill(S < -1e29, 0.0)
    torch.testing.assert_close(SIGMOID.gradient(S), torch.func.grad(loss)(S))
    for change, positive, negative in zip(
        dS, SIGMOID.positive_derivative(S, dS), SIGMOID.negative_derivative(S, dS), strict=True
    ):
        torch.testing.assert_close(positive, torch.func.jvp(SIGMOID.positive, (S,), (change,))[1])
        torch.testing.assert_close(negative, torch.func.jvp(SIGMOID.negative, (S,), (change,))[1])
        bent = torch.func.jvp(torch.func.grad(loss), (S,), (change,))[1]
        torch.testing.assert_close(SIGMOID.curvature(S, change), bent)


def test_float32_keeps_its_digits_where_a_pair_is_sure() -> None:
    S = torch.tensor([[40.0, -50.0], [60.0, -30.0]])
    for function in (SIGMOID.positive, SIGMOID.negative, SIGMOID.gradient, SIGMOID.pair_loss):
        torch.testing.assert_close(function(S).double(), function(S.double()), rtol=1e-5, atol=0)
    assert float(SIGMOID.negative(S)[0]) == pytest.approx(60.0)
    roots = SIGMOID.sample_root(S, 1, torch.Generator().manual_seed(0))
    assert roots.abs().double().flatten().tolist() == pytest.approx(
        [math.exp(-20), math.exp(-25), math.exp(-30), math.exp(-15)], rel=1e-4
    )


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="exact"):
        SIGMOID.negative(torch.zeros(2, 2), "clamped")  # type: ignore[arg-type]


def objective_of(theta: Tensor, objective: Objective, params: Any, batches: list[Batch]) -> Tensor:
    """From the definition, with the bias and the scale of the parameters where they hold them."""
    p, total = unflatten(theta, params), theta.new_zeros(())
    scale = p[LOGIT_SCALE].exp() if LOGIT_SCALE in p else objective.scale
    for batch in batches:
        text, image = objective.embed(p, batch.images, batch.texts)
        text, image = text / text.norm(dim=1, keepdim=True), image / image.norm(dim=1, keepdim=True)
        S = scale * text @ image.mT + p.get(LOGIT_BIAS, objective.bias)
        equal = batch.caption_group[:, None] == batch.caption_group[None, :]
        own = torch.eye(batch.size, dtype=torch.bool)
        cells = torch.log1p(torch.exp(torch.where(own, -S, S)))
        total = total + torch.where(equal & ~own, 0.0, cells).sum()
    offset = theta - flatten(objective.prior)
    return total / objective.partitions + objective.ridge() / 2 * offset.square().sum()


@pytest.mark.parametrize("trained", [False, True])
def test_value_gradient_and_hessian(make_world: MakeWorld, trained: bool) -> None:
    world = make_world(partitions=2, loss=SIGMOID)
    params = {name: tensor + 0.05 for name, tensor in world.params.items()}
    objective = world.objective
    if trained:
        moved = {LOGIT_SCALE: torch.tensor(1.5).double(), LOGIT_BIAS: torch.tensor(-1.0).double()}
        params |= moved
        objective = replace(objective, prior=dict(objective.prior) | {name: of + 0.1 for name, of in moved.items()})
    theta = flatten(params)
    given = (objective, params, world.batches())
    value, gradient = objective.value_and_gradient(params, world.batches())
    assert value == pytest.approx(float(objective_of(theta, *given)))
    torch.testing.assert_close(gradient, torch.func.grad(objective_of)(theta, *given))
    H = torch.func.hessian(objective_of)(theta, *given)
    torch.testing.assert_close(dense_matrix(Hessian(objective, params, world.batches)), H)
    G = dense_matrix(GaussNewton(objective, params, world.batches))
    assert float(torch.linalg.eigvalsh(G)[0]) >= objective.ridge() * (1 - 1e-9)


def test_a_set_leaves_as_it_is_deleted(make_world: MakeWorld) -> None:
    world = make_world(loss=SIGMOID)
    batch = world.batches()[0]
    removed = torch.arange(batch.size) % 3 == 0
    staying = Batch(*(getattr(batch, name)[~removed] for name in ("images", "texts", "caption_group", "image_group")))

    def left(p: Any) -> Tensor:
        return world.objective.batch_loss(p, batch) - world.objective.batch_loss(p, staying)

    truth = flatten(torch.func.grad(left)(world.params))
    torch.testing.assert_close(removal_gradient(world.objective, world.params, batch, removed), truth)
    w = draw(220, seed=4)[:2]
    scores = score_removals(world.objective, world.params, batch, w, removed[None])
    torch.testing.assert_close(scores[:, 0], w @ truth)


def test_tracin_takes_the_whole_loss_of_a_pair_and_trak_is_gauss_newton_inside(make_world: MakeWorld) -> None:
    world = make_world(loss=SIGMOID)
    batch, g = world.batches()[0], draw(220, seed=5)[0]
    each = torch.func.jacrev(lambda p: SIGMOID.pair_loss(world.objective.similarity(p, batch)))(world.params)
    truth = 0.5 * flatten(each, leading=1) @ g
    torch.testing.assert_close(tracin(world.objective, [world.params], [0.5], [g], batch), truth)
    projection = Projection.draw(world.params, 5, seed=0)
    kernel = trak_kernel(world.objective, world.params, world.batches, projection, draws=64)  # all cells of a batch
    G = dense_matrix(GaussNewton(world.objective, world.params, world.batches))
    inside = projection.down(projection.down(G - world.objective.ridge() * torch.eye(220).double()).mT)
    torch.testing.assert_close(kernel, inside)


def test_a_fit_moves_scale_and_bias_and_no_cap_holds_the_scale(make_world: MakeWorld) -> None:
    world = make_world(n=48, scale=120.0, l2=0.01, duplicates=False, loss=SIGMOID)
    fixed = fit(world.objective, world.params, world.batches, FitSettings(epochs=150))
    scale = torch.tensor(starting_logit_scale(120.0, SIGMOID), dtype=torch.float64)
    assert float(scale.exp()) == pytest.approx(120.0)
    params = world.params | {LOGIT_SCALE: scale, LOGIT_BIAS: torch.tensor(world.objective.bias, dtype=torch.float64)}
    objective = replace(world.objective, prior=params)
    assert objective.value_and_gradient(params, world.batches())[0] == pytest.approx(
        world.objective.value_and_gradient(world.params, world.batches())[0]
    )
    free = fit(objective, params, world.batches, FitSettings(epochs=150))
    assert free.objective < fixed.objective
    assert abs(float(free.params[LOGIT_BIAS]) - world.objective.bias) > 0.1


def test_a_bias_belongs_to_the_sigmoid_loss(make_world: MakeWorld) -> None:
    softmax, sigmoid = make_world().objective, make_world(loss=SIGMOID).objective
    with pytest.raises(ValueError, match="bias"):
        replace(softmax, bias=-1.0)
    with pytest.raises(ValueError, match="bias"):
        replace(sigmoid, bias=math.inf)
    with pytest.raises(ValueError, match="scale"):
        replace(sigmoid, scale=math.inf)


def test_embeddings_of_a_model_with_a_bias() -> None:
    g = torch.Generator().manual_seed(0)
    latent = torch.randn(200, 6, generator=g)
    images, texts = (latent + 0.2 * torch.randn(latent.shape, generator=g) for _ in range(2))
    texts[100:120] = texts[100:120].roll(1, 0)
    given: dict[str, Any] = {"temperature": 0.1, "batch_size": 40}
    clean = (images[120:], texts[120:])
    ranking = rank_embeddings(images[:120], texts[:120], clean=clean, logit_bias=-5.0, **given)
    assert ranking.fit.stationary
    assert int((ranking.order[:20] >= 100).sum()) >= 19
    assert bool((ranking.scores["self_influence"] > 0).all())
    other = rank_embeddings(images[:120], texts[:120], clean=clean, **given)
    assert not torch.allclose(ranking.scores["pair_loss"], other.scores["pair_loss"])
