"""Oracles of `docs/design.md`, section 11: what leaves the loss, against deletion and finite differences."""

import math

import pytest
import torch
from torch import Tensor

from ecif import exclude, false_negatives, negative, negative_derivative, positive, positive_derivative, removal_loss
from ecif.roles import Negative


def loss(S: Tensor) -> Tensor:
    return -(S.log_softmax(1) + S.log_softmax(0)).diagonal().sum()


def keep(S: Tensor, places: Tensor) -> Tensor:
    return S[places][:, places]


def draw(B: int, spread: float = 3.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return spread * torch.randn(B, B, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def masked(B: int = 8) -> Tensor:
    groups = torch.tensor([0, 1, 0, 2, 3, 3, 3, 4])[:B]
    return exclude(draw(B), false_negatives(groups, torch.arange(B)))


MATRICES = {
    "plain": draw(8),
    "wide": draw(8, 30.0),
    "masked": masked(),
    "two": draw(2),
    "ties": torch.ones(5, 5).double(),
}


@pytest.mark.parametrize("name", MATRICES)
def test_both_roles_are_what_deletion_takes_from_the_loss(name: str) -> None:
    S = MATRICES[name]
    B = len(S)
    deleted = [loss(S) - loss(keep(S, torch.arange(B) != n)) for n in range(B)]
    torch.testing.assert_close(positive(S) + negative(S), torch.stack(deleted), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MATRICES)
def test_a_set_is_what_deleting_it_takes_from_the_loss(name: str) -> None:
    S = MATRICES[name]
    B = len(S)
    for removed in (torch.arange(B) % 2 == 0, torch.arange(B) == 1, torch.ones(B).bool(), torch.zeros(B).bool()):
        torch.testing.assert_close(removal_loss(S, removed), loss(S) - loss(keep(S, ~removed)), rtol=1e-10, atol=1e-10)
    S = S.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(removal_loss(S, torch.arange(B) % 2 == 0), S)
    assert bool(gradient.isfinite().all())


def test_taylor_is_the_first_order_in_zeta_and_the_printed_reciprocal_is_not() -> None:
    S = draw(5)

    def perturbed(n: int, zeta: float) -> Tensor:
        """The others' loss with ζ on pair n's place in their denominators."""
        others = torch.arange(5) != n
        rows, columns = S.exp().clone(), S.exp().clone()
        rows[others, n] *= zeta
        columns[n, others] *= zeta
        diagonal = S.diagonal()
        total = rows.sum(1).log() + columns.sum(0).log() - 2 * diagonal
        return total[others].sum()

    step = 1e-5
    difference = torch.stack([(perturbed(n, 1 + step) - perturbed(n, 1 - step)) / (2 * step) for n in range(5)])
    torch.testing.assert_close(negative(S, "taylor"), difference, rtol=1e-8, atol=1e-8)
    others = 1 - torch.eye(5).double()
    printed = ((1 / S.softmax(1) * others).sum(0)) + ((1 / S.softmax(0) * others).sum(1))
    assert float((printed / difference).min()) > 10


@pytest.mark.parametrize("S_hard", [60.0, 100.0])
def test_a_hard_negative_counts_in_full_in_float32(S_hard: float) -> None:
    S = torch.zeros(3, 3)
    S[0, 2] = S_hard
    S.requires_grad_()
    value = negative(S)[2]
    (gradient,) = torch.autograd.grad(value, S)
    # Row 0 is freed of S_hard − log 2; row 1 and columns 0 and 1 of an even third: log(3/2) each.
    assert value.item() == pytest.approx(S_hard - math.log(2) + 3 * math.log(1.5), rel=1e-6)
    assert gradient[0, 2].item() == pytest.approx(1.0)
    for dS in (torch.eye(3), draw(3, dtype=torch.float32)):
        torch.testing.assert_close(
            negative_derivative(S.detach(), dS),
            torch.func.jvp(negative, (S.detach(),), (dS,))[1],
        )
    pair = torch.tensor([[0.0, S_hard], [0.0, 0.0]], requires_grad=True)
    removed = negative(pair)[1]
    (gradient,) = torch.autograd.grad(removed, pair)
    assert removed.item() == pytest.approx(S_hard + math.log(2), rel=1e-6)
    # The column twin adds its even half, −½, to S[0, 0].
    assert gradient[0].tolist() == pytest.approx([-1.5, 1.0])


@pytest.mark.parametrize("mode", ["exact", "taylor"])
@pytest.mark.parametrize("name", MATRICES)
def test_closed_form_derivatives_match_autograd(name: str, mode: Negative) -> None:
    S = MATRICES[name]
    dS = torch.stack([draw(len(S), seed=i) for i in range(3)])
    for i in range(3):
        torch.testing.assert_close(positive_derivative(S, dS)[i], torch.func.jvp(positive, (S,), (dS[i],))[1])
        torch.testing.assert_close(
            negative_derivative(S, dS, mode)[i],
            torch.func.jvp(lambda x: negative(x, mode), (S,), (dS[i],))[1],
        )


@pytest.mark.parametrize("mode", ["exact", "taylor"])
@pytest.mark.parametrize("spread", [1.0, 10.0, 40.0, 100.0])
def test_float32_agrees_with_float64_however_saturated(spread: float, mode: Negative) -> None:
    S = draw(16, seed=5).clamp(-3, 3) / 3 * spread
    S = S.float().double()
    dS = draw(16, seed=6).float()[None]
    for function, tolerance in (
        (positive, 1e-5),
        (lambda x: negative(x, mode), 1e-5),
        (lambda x: positive_derivative(x, dS.to(x)), 1e-4),
        (lambda x: negative_derivative(x, dS.to(x), mode), 1e-4),
        (torch.func.jacrev(positive), 1e-4),
        (torch.func.jacrev(lambda x: negative(x, "exact")), 1e-4),
    ):
        torch.testing.assert_close(function(S.float()).double(), function(S), rtol=tolerance, atol=tolerance)


def test_saturated_pairs_keep_relative_accuracy() -> None:
    S = torch.tensor([[40.0, 0.0], [5.0, 40.0]])
    dS = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    for function in (positive, lambda x: positive_derivative(x, dS.to(x)), lambda x: negative_derivative(x, dS.to(x))):
        torch.testing.assert_close(function(S).double(), function(S.double()), rtol=1e-5, atol=0)


def test_a_batch_of_one_has_no_contrast() -> None:
    S = torch.tensor([[7.0]], requires_grad=True)
    assert positive(S).item() == negative(S).item() == negative(S, "taylor").item() == 0
    (gradient,) = torch.autograd.grad((positive(S) + negative(S) + negative(S, "taylor")).sum(), S)
    assert gradient.item() == 0
    dS = torch.ones(2, 1, 1)
    for d in (positive_derivative(S, dS), negative_derivative(S, dS), negative_derivative(S, dS, "taylor")):
        assert torch.equal(d.detach(), torch.zeros(2, 1))


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="exact"):
        negative(torch.zeros(2, 2), "clamped")  # type: ignore[arg-type]
