"""Kronecker factors of two heads: what they represent, as an inverse, as a sum of few terms, as a preconditioner."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ecif import Batch, GaussNewton, Objective, cut_batches, dense_matrix
from ecif.curvature import kronecker
from ecif.curvature.kronecker import Head, Kronecker
from tests.ecif.test_heads import Heads, embed
from tests.ecif.test_per_pair import inverse_of


@pytest.fixture(params=[False, True], ids=["no bias", "bias"])
def heads(request: pytest.FixtureRequest) -> Heads:
    return Heads(bias=request.param)


def test_it_solves_with_what_it_represents_and_that_is_near_gauss_newton(
    heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kronecker, "SAMPLE", 4000)
    built = Kronecker.of(heads.objective, heads.params, heads.batches, damping=0.4)
    H = dense_matrix(GaussNewton(heads.objective, heads.params, heads.batches, damping=0.4))
    P = len(H)
    inverse = built.solve(torch.eye(P, dtype=torch.float64)).x
    torch.testing.assert_close(inverse, inverse.mT)
    represented = torch.linalg.inv(inverse)
    assert float(represented.trace()) == pytest.approx(float(H.trace()), rel=0.1)
    assert float(torch.linalg.eigvalsh(represented)[0]) >= heads.objective.ridge(0.4) * (1 - 1e-9)
    # Closer to the matrix than its diagonal is: the block between the heads is what is missing.
    size = H.norm()
    assert float((represented - H).norm() / size) < 0.8 * float((torch.diag(H.diagonal()) - H).norm() / size)


def test_few_terms_stand_for_the_inverse(heads: Heads) -> None:
    built = Kronecker.of(heads.objective, heads.params, heads.batches, damping=0.4)
    for tower, terms in built.terms().items():
        head = built.heads[tower]
        given = head.eigenvalues / (head.eigenvalues + built.ridge)
        summed = head.eigenvalues * (terms.along.mT @ terms.across)
        assert len(terms.along) <= 8
        assert float((summed - given).abs().sum()) <= 0.1 * float(given.sum())
    whole = built.solve(torch.eye(len(heads.directions[0]), dtype=torch.float64)).x
    assert float((inverse_of(heads, built.terms()) - whole).norm() / whole.norm()) < 0.2


def test_no_more_terms_than_needed() -> None:
    flat = Head(torch.eye(3), torch.eye(4), torch.ones(3, 4, dtype=torch.float64))
    assert len(flat.terms(1.0).along) == 1
    g = torch.Generator().manual_seed(0)
    rough = replace(flat, left=torch.eye(40), right=torch.eye(40), eigenvalues=torch.rand(40, 40, generator=g).double())
    assert 1 < len(rough.terms(1e-3).along) <= 8


def test_a_sample_stands_for_all_batches(heads: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Kronecker.of(heads.objective, heads.params, lambda: heads.batches() * 20)
    monkeypatch.setattr(kronecker, "SAMPLE", 7)
    some = Kronecker.of(heads.objective, heads.params, lambda: heads.batches() * 20)
    for tower, head in some.heads.items():
        assert float(head.eigenvalues.sum()) == pytest.approx(float(whole.heads[tower].eigenvalues.sum()), rel=0.6)


def test_conjugate_gradients_need_fewer_passes_with_it() -> None:
    """Features that have much in common, as those of a tower do."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    latent = draw(640, 48)
    images, texts = (latent + 0.3 * draw(640, 48) + 2 * draw(48) for _ in range(2))
    weight = draw(24, 48) / 48**0.5
    start = {"image.weight": weight, "text.weight": weight.clone()}
    objective = Objective(embed, 20.0, 0.3, start, 640, linear=True)
    batches = [Batch(images[cut], texts[cut], cut, cut) for cut in cut_batches(torch.arange(640), 64)]
    rhs = objective.value_and_gradient(start, batches)[1][None]
    plain = GaussNewton(objective, start, lambda: batches, tolerance=1e-2)
    slow = plain.solve(rhs)
    fast = replace(plain, preconditioner=Kronecker.of(objective, start, lambda: batches)).solve(rhs)
    assert fast.converged
    assert fast.iterations < 0.75 * slow.iterations
    assert float((fast.x - slow.x).norm() / slow.x.norm()) < 0.1


def test_what_it_cannot_invert_is_refused(heads: Heads) -> None:
    with pytest.raises(ValueError, match="l2 or damping above 0"):
        Kronecker.of(replace(heads.objective, l2=0.0), heads.params, heads.batches)
    with pytest.raises(ValueError, match="linear heads"):
        Kronecker.of(heads.plain, heads.params, heads.batches)
