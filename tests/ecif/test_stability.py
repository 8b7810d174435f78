"""How far repeats of a score agree."""

import pytest
import torch
from torch import Tensor

from ecif import learn_suspicion
from ecif.stability import TOP, stability


def test_what_repeats_share_is_counted_pair_by_pair() -> None:
    g = torch.Generator().manual_seed(0)
    repeats = torch.randn(200, generator=g) + 0.5 * torch.randn(3, 200, generator=g)
    known = torch.rand(3, 200, generator=g) < 0.8
    found = stability(repeats, known)
    assert found is not None
    correlations, overlaps, shared = list[float](), list[float](), list[int]()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        both = [n for n in range(200) if known[one, n] and known[other, n]]
        a, b = ({n: float(repeats[which, n]) for n in both} for which in (one, other))
        place = [{n: k for k, n in enumerate(sorted(both, key=of.__getitem__))} for of in (a, b)]
        squares = sum((place[0][n] - place[1][n]) ** 2 for n in both)
        m = len(both)
        correlations.append(1 - 6 * squares / (m * (m**2 - 1)))  # Spearman's own form
        top = [{n for n in both if where[n] >= m - round(0.1 * m)} for where in place]
        overlaps.append(len(top[0] & top[1]) / len(top[0]))
        shared.append(m)
    assert found.rank_correlation == pytest.approx(sum(correlations) / 3)
    assert found.top_overlap[0.1] == pytest.approx(sum(overlaps) / 3)
    assert (found.repeats, found.pairs) == (3, round(sum(shared) / 3))
    assert tuple(found.top_overlap) == TOP


def test_the_standard_error_is_that_of_the_mean() -> None:
    g = torch.Generator().manual_seed(1)
    repeats = 3.0 * torch.randn(4, 20_000, generator=g, dtype=torch.float64)
    both, alone = stability(repeats), stability(repeats, averaged=1)
    assert both is not None
    assert alone is not None
    assert both.standard_error == pytest.approx(3.0 / 2, rel=0.02)  # of the mean of four
    assert alone.standard_error == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize(
    "repeats",
    [torch.rand(1, 50), torch.rand(2, 1), torch.ones(2, 50), torch.stack([torch.ones(50), torch.arange(50.0)])],
    ids=["one repeat", "one pair", "all the same", "one of them constant"],
)
def test_where_nothing_can_be_compared_nothing_is_said(repeats: Tensor) -> None:
    assert stability(repeats) is None


def test_shapes_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match="known alike"):
        stability(torch.rand(2, 5), torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("noise", [0.3, 1.5])
def test_draws_of_exchanges_tell_how_far_another_seed_would_agree(noise: float) -> None:
    """The ranking is of several draws, and so agrees better than two of them."""
    g = torch.Generator().manual_seed(2)
    images = torch.randn(400, 12, generator=g)
    texts = images + noise * torch.randn(400, 12, generator=g)
    texts[:80] = texts[:80].roll(1, 0)
    numbers = torch.arange(400)
    rankings = [learn_suspicion(images, texts, None, numbers, numbers, scale=10.0, seed=seed) for seed in (0, 1)]
    told, seeds = rankings[0].stability, stability(torch.stack([each.suspicion for each in rankings]), averaged=1)
    assert told is not None
    assert seeds is not None
    assert told.repeats == 6
    assert 0.9 < told.rank_correlation < seeds.rank_correlation
    assert 0.5 < told.standard_error / seeds.standard_error < 2
