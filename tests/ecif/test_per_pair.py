"""What every pair's leaving does: closed forms against explicit gradients and an explicit inverse."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from ecif import Batch, Dense, GaussNewton, Negative, pair_gradients, push
from ecif.curvature.kronecker import Terms
from ecif.heads import TOWERS, AtParams, Stack
from ecif.losses import SIGMOID, SOFTMAX, Loss
from ecif.per_pair import without_each, without_each_exactly
from tests.ecif.test_heads import Heads


def some_terms(heads: Heads, count: int = 2) -> dict[str, Terms]:
    """Positive definite, in other bases for each head."""
    g = torch.Generator().manual_seed(5)

    def turn(n: int) -> Tensor:
        turned: Tensor = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))[0]
        return turned

    def draw(n: int) -> Tensor:
        return torch.rand(count, n, generator=g, dtype=torch.float64) + 0.1

    terms = {}
    for tower in TOWERS:
        E, D = heads.params[f"{tower}.weight"].shape
        D += f"{tower}.bias" in heads.params
        terms[tower] = Terms(turn(E), turn(D), draw(E), draw(D))
    return terms


def inverse_of(heads: Heads, terms: dict[str, Terms]) -> Tensor:
    """(P, P): Σ_r G_r ⊗ A_r of each head, in the order of flattened parameters."""
    numbers, P = {}, 0
    for name in sorted(heads.params):
        count = heads.params[name].numel()
        numbers[name] = torch.arange(P, P + count).view(heads.params[name].shape)
        P += count
    whole = torch.zeros(P, P, dtype=torch.float64)
    for tower, (left, right, along, across) in terms.items():
        places = numbers[f"{tower}.weight"]
        if f"{tower}.bias" in numbers:
            places = torch.cat([places, numbers[f"{tower}.bias"][:, None]], 1)
        for G, A in zip(along, across, strict=True):
            block = torch.kron(left @ torch.diag(G) @ left.mT, right @ torch.diag(A) @ right.mT)
            whole[places.flatten()[:, None], places.flatten()] += block
    return whole


def explicit(heads: Heads, batch: Batch, inverse: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """(self-influence, leave-one-out loss), (B,) each, by torch.func and one move of all of S for each pair."""
    g = pair_gradients(heads.plain, heads.params, batch, cast("Negative", mode))
    S, dS = push(heads.plain, heads.params, batch, g @ inverse)
    return ((g @ inverse) * g).sum(1), heads.objective.loss.pair_loss(S + dS).diagonal()


@pytest.mark.parametrize("mode", ["exact", "taylor"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", [SOFTMAX, SIGMOID], ids=lambda loss: loss.name)
def test_closed_forms(loss: Loss, bias: bool, masked: bool, mode: Negative) -> None:
    heads = Heads(bias=bias, loss=loss)
    heads.objective = replace(heads.objective, mask_duplicates=masked)
    terms = some_terms(heads)
    inverse = inverse_of(heads, terms)
    for batch in [*heads.batches(4), *heads.batches(26)]:  # the last is one of one pair
        ours = without_each(AtParams.of(heads.objective, heads.params, batch), terms, loss, mode)
        squared, loo = explicit(heads, batch, inverse, mode)
        torch.testing.assert_close(ours.self_influence[0], squared, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours.leave_one_out[0], loo, rtol=1e-9, atol=1e-9)


def test_several_batches_at_once() -> None:
    heads = Heads(bias=False)
    terms, batches = some_terms(heads), heads.batches(4)[:3]
    ours = without_each(AtParams.of(heads.objective, heads.params, Stack.of(batches)), terms, SOFTMAX)
    for at, batch in enumerate(batches):
        alone = without_each(AtParams.of(heads.objective, heads.params, batch), terms, SOFTMAX)
        torch.testing.assert_close(ours.self_influence[at], alone.self_influence[0])
        torch.testing.assert_close(ours.leave_one_out[at], alone.leave_one_out[0])


@pytest.mark.parametrize("mode", ["exact", "taylor"])
def test_a_negative_that_is_sure_is_right_in_single_precision(mode: Negative) -> None:
    """Of one text p of another image rounds to 1: its gradient is no difference of rounded numbers."""
    double, single = Heads(bias=False, scale=100.0), Heads(bias=False, scale=100.0, dtype=torch.float32)
    terms = some_terms(double)
    narrow = {tower: Terms(*(part.float() for part in of)) for tower, of in terms.items()}
    batch, coarse = double.batches(27)[0], single.batches(27)[0]
    p = AtParams.of(single.objective, single.params, coarse).S[0].softmax(1)
    assert bool((p.fill_diagonal_(0) == 1).any())
    exact = without_each(AtParams.of(double.objective, double.params, batch), terms, SOFTMAX, mode)
    ours = without_each(AtParams.of(single.objective, single.params, coarse), narrow, SOFTMAX, mode)
    scale = float(exact.self_influence.max())
    torch.testing.assert_close(ours.self_influence.double(), exact.self_influence, rtol=1e-3, atol=1e-5 * scale)
    torch.testing.assert_close(ours.leave_one_out.double(), exact.leave_one_out, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["exact", "taylor"])
@pytest.mark.parametrize("loss", [SOFTMAX, SIGMOID], ids=lambda loss: loss.name)
def test_small_models_are_exact(loss: Loss, mode: Negative) -> None:
    heads = Heads(bias=True, loss=loss)
    dense = Dense.of(GaussNewton(heads.objective, heads.params, heads.batches))
    for batch in heads.batches():
        ours = without_each_exactly(heads.objective, heads.params, batch, dense, mode)
        squared, loo = explicit(heads, batch, torch.linalg.inv(dense.H), mode)
        torch.testing.assert_close(ours.self_influence, squared)
        torch.testing.assert_close(ours.leave_one_out, loo)


def test_an_unknown_form_of_the_negative_role_is_refused() -> None:
    heads = Heads(bias=False)
    at = AtParams.of(heads.objective, heads.params, heads.batches()[0])
    with pytest.raises(ValueError, match="negative must be"):
        without_each(at, some_terms(heads), SOFTMAX, cast("Negative", "both"))
