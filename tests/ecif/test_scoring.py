from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ecif import (
    Batch,
    Objective,
    Params,
    flatten,
    forward_mode,
    pair_gradients,
    score_batch,
    unflatten,
)
from ecif.losses import SIGMOID, SOFTMAX, Loss
from ecif.roles import Negative
from tests.ecif.conftest import MakeWorld


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["exact", "taylor"])
@pytest.mark.parametrize("k", [1, 3, 40])
@pytest.mark.parametrize("loss", [SOFTMAX, SIGMOID], ids=lambda loss: loss.name)
def test_scores_are_inner_products_with_per_pair_gradients(
    make_world: MakeWorld, loss: Loss, mode: Negative, dtype: torch.dtype, k: int
) -> None:
    world = make_world(dtype=dtype, loss=loss)
    batch, params = world.batches()[0], world.params
    w = torch.randn(k, 220, generator=torch.Generator().manual_seed(1), dtype=dtype)
    scores = score_batch(world.objective, params, batch, w, mode)

    def role(function: Callable[[Tensor], Tensor]) -> Tensor:
        gradient = torch.func.jacrev(lambda p: function(world.objective.similarity(p, batch)))(params)
        return w @ flatten(gradient, leading=1).mT

    tolerance: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(scores.positive, role(loss.positive), **tolerance)
    torch.testing.assert_close(scores.negative, role(lambda S: loss.negative(S, mode)), **tolerance)
    torch.testing.assert_close(scores.pair, role(loss.pair_loss), **tolerance)
    both = w @ pair_gradients(world.objective, params, batch, mode).mT
    torch.testing.assert_close(scores.total, both, **tolerance)
    torch.testing.assert_close(scores.pair_loss.sum(), world.objective.batch_loss(params, batch))
    text, image = world.objective.embed(params, batch.images, batch.texts)
    torch.testing.assert_close(scores.clip_score, torch.cosine_similarity(text, image), **tolerance)


def test_a_lone_pair_scores_zero_and_a_zero_embedding_is_finite(make_world: MakeWorld) -> None:
    world = make_world()
    w = torch.ones(2, 220, dtype=torch.float64)
    lone = score_batch(world.objective, world.params, world.take(torch.tensor([3])), w)
    assert torch.equal(lone.total, torch.zeros(2, 1, dtype=torch.float64))
    batch = world.batches()[0]
    texts = batch.texts.clone()
    texts[0] = 0
    blank = Batch(batch.images, texts, batch.caption_group, batch.image_group)
    scores = score_batch(world.objective, world.params, blank, w)
    assert bool(scores.total.isfinite().all())
    assert float(scores.clip_score[0]) == 0


def test_a_trainable_scale_is_capped_and_scored(make_world: MakeWorld) -> None:
    world = make_world()
    params = world.params | {"logit_scale": torch.tensor(2.0, dtype=torch.float64)}
    objective = Objective(world.objective.embed, 5.0, 0.3, params, 24)
    batch = world.batches()[0]
    w = torch.randn(1, 221, dtype=torch.float64)
    torch.testing.assert_close(
        score_batch(objective, params, batch, w).total, w @ pair_gradients(objective, params, batch).mT
    )
    assert float(objective.scale_of(params | {"logit_scale": torch.tensor(9.0)})) == 100


def test_directions_must_be_flat_and_fit(make_world: MakeWorld) -> None:
    world = make_world()
    batch = world.batches()[0]
    with pytest.raises(ValueError, match="directions"):
        score_batch(world.objective, world.params, batch, torch.zeros(220))
    with pytest.raises(ValueError, match="220"):
        score_batch(world.objective, world.params, batch, torch.zeros(1, 7))


def test_attention_can_be_scored_and_its_settings_come_back(make_world: MakeWorld) -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    params = {name: tensor.detach() for name, tensor in layer.named_parameters()}

    def embed(p: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.functional_call(layer, p, (texts,))[:, 0], images

    batch = Batch(torch.randn(4, 8), torch.randn(4, 3, 8), torch.arange(4), torch.arange(4))
    objective = Objective(embed, 10.0, 0.1, params, 4)
    w = torch.randn(3, flatten(params).numel())
    before = torch.backends.mha.get_fastpath_enabled()
    expected = w @ pair_gradients(objective, params, batch).mT
    torch.testing.assert_close(score_batch(objective, params, batch, w).total, expected, rtol=1e-3, atol=1e-3)
    with forward_mode():
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_flat_vectors_go_there_and_back() -> None:
    params = {"b": torch.randn(2, 3), "a": torch.tensor(1.5), "c": torch.randn(4)}
    flat = flatten(params)
    assert float(flat[0]) == 1.5
    for name, tensor in unflatten(flat, params).items():
        assert torch.equal(tensor, params[name])
    stack = torch.randn(5, 11)
    assert torch.equal(flatten(unflatten(stack, params), leading=1), stack)


def test_parameters_that_require_gradients_leave_no_graph_behind(make_world: MakeWorld) -> None:
    world = make_world()
    batch, w = world.batches()[0], torch.ones(2, 220, dtype=torch.float64)
    live: Params = {name: torch.nn.Parameter(tensor) for name, tensor in world.params.items()}
    scores = score_batch(world.objective, live, batch, w)
    assert not scores.total.requires_grad
    assert not scores.pair_loss.requires_grad
    assert torch.equal(scores.total, score_batch(world.objective, world.params, batch, w).total)
    assert not pair_gradients(world.objective, live, batch).requires_grad
