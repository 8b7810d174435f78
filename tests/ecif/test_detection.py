import math

import pytest
import torch

from ecif import (
    benjamini_hochberg,
    calibration_warning,
    conformal_p_values,
    estimate_noise_rate,
    smallest_flaggable,
)
from ecif.detection.flags import flag_against_clean, flag_by_estimate
from ecif.detection.suspicion import (
    fractional_ranks,
    rank_by_influence,
    rank_by_suspicion,
    rank_for_removal,
    suspicion,
)


def test_p_values_count_the_calibration_pairs_at_least_as_suspicious() -> None:
    p = conformal_p_values(torch.tensor([0.5, 3.0, 2.0, -1.0]), torch.tensor([0.0, 2.0, 1.0, 2.0]))
    assert p.tolist() == pytest.approx([4 / 5, 1 / 5, 3 / 5, 1.0])
    with pytest.raises(ValueError, match="calibration"):
        conformal_p_values(torch.zeros(3), torch.zeros(0))
    with pytest.raises(ValueError, match="NaN"):
        conformal_p_values(torch.tensor([math.nan]), torch.zeros(3))


def test_benjamini_hochberg_by_hand() -> None:
    answer = benjamini_hochberg(torch.tensor([0.04, 0.01, 0.9, 0.03]), 0.06)
    assert answer.q_value.tolist() == pytest.approx([0.16 / 3, 0.04, 0.9, 0.16 / 3])
    assert answer.flagged.tolist() == [True, True, False, True]
    assert benjamini_hochberg(torch.zeros(0), 0.1).flagged.shape == (0,)
    for p, rate in (([0.1], 1.5), ([1.2], 0.1), ([math.nan], 0.1)):
        with pytest.raises(ValueError, match=r"rate|p-values|NaN"):
            benjamini_hochberg(torch.tensor(p), rate)


def test_the_false_discovery_rate_is_kept_over_many_repetitions() -> None:
    g = torch.Generator().manual_seed(0)
    rate, proportions, power = 0.2, [], []
    for _ in range(400):
        scores = torch.randn(500, generator=g)
        scores[:100] += 3
        flagged = benjamini_hochberg(conformal_p_values(scores, torch.randn(300, generator=g)), rate).flagged
        proportions.append(float(flagged[100:].sum()) / max(1, int(flagged.sum())))
        power.append(float(flagged[:100].float().mean()))
    clean_share = 0.8
    assert sum(proportions) / 400 == pytest.approx(rate * clean_share, abs=0.02)
    assert sum(power) / 400 > 0.8


def test_too_small_a_calibration_set_is_told() -> None:
    assert smallest_flaggable(9, 1000, 0.1) == 1000
    assert smallest_flaggable(8, 1000, 0.1) > 1000
    assert "at least 9" in calibration_warning(8, 1000, 0.1)
    assert "100 of 1000" in calibration_warning(99, 1000, 0.1)
    assert calibration_warning(999, 1000, 0.1) is None
    m, n, rate = 99, 1000, 0.1
    for extreme, expected in ((99, False), (100, True)):
        scores = torch.cat([torch.full((extreme,), 9.0), torch.zeros(n - extreme)])
        p = conformal_p_values(scores, torch.linspace(0, 1, m))
        assert bool(benjamini_hochberg(p, rate).flagged.any()) == expected


@pytest.mark.parametrize("true_rate", [0.05, 0.2, 0.4])
def test_the_noise_rate_of_a_clear_mixture(true_rate: float) -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(2000, generator=g)
    scores[: int(2000 * true_rate)] += 5
    answer = estimate_noise_rate(scores)
    assert answer.rate == pytest.approx(true_rate, abs=0.03)
    order = scores.argsort()
    assert bool((answer.posterior[order].diff() >= 0).all())


def test_one_population_and_degenerate_scores_look_clean() -> None:
    g = torch.Generator().manual_seed(0)
    assert estimate_noise_rate(torch.randn(3000, generator=g)).rate == 0
    for scores in (torch.zeros(0), torch.ones(1), torch.ones(50), torch.full((20,), math.nan)):
        answer = estimate_noise_rate(scores)
        assert answer.rate == 0
        assert not bool(answer.flagged.any())
    odd = torch.randn(100, generator=g)
    odd[0], odd[1], odd[2] = math.nan, math.inf, -math.inf
    answer = estimate_noise_rate(odd)
    assert 0 <= answer.rate <= 1
    assert not bool(answer.flagged[0])
    two = torch.cat([torch.zeros(60), torch.ones(40)])
    assert 0 <= estimate_noise_rate(two).rate <= 1


def test_suspicion_is_the_mean_of_the_ranks_of_loss_and_cosine() -> None:
    loss, cosine = torch.tensor([3.0, 1.0, 2.0, 0.5]), torch.tensor([0.1, 0.2, 0.9, 0.8])
    both = suspicion(loss, cosine)
    assert both.tolist() == pytest.approx([(4 + 4) / 10, (2 + 3) / 10, (3 + 1) / 10, (1 + 2) / 10])
    assert torch.equal(suspicion(loss, None), fractional_ranks(loss))
    ranking = rank_by_suspicion(both)
    assert ranking.by == "suspicion"
    assert ranking.order().tolist() == [0, 1, 2, 3]
    assert ranking.order(2).tolist() == [0, 1]


def test_the_most_harmful_come_first_and_ties_stay_as_they_stand() -> None:
    ranking = rank_by_influence(torch.tensor([0.5, -1.0, 0.0, -1.0]))
    assert ranking.by == "influence"
    assert ranking.order().tolist() == [1, 3, 2, 0]


def test_a_removal_is_ranked_by_the_best_score_there_is() -> None:
    scores = {"clip_score": torch.tensor([0.9, 0.1]), "self_influence": torch.tensor([2.0, 1.0])}
    assert rank_for_removal(scores).by == "self_influence"
    assert rank_for_removal(scores).order().tolist() == [0, 1]
    assert rank_for_removal(scores | {"influence": torch.tensor([1.0, -1.0])}).order().tolist() == [1, 0]
    assert rank_for_removal({"clip_score": scores["clip_score"]}).order().tolist() == [1, 0]


def test_flags_against_clean_pairs_are_the_procedure_s() -> None:
    scores, clean = torch.tensor([0.9, 0.95, 0.2]), torch.linspace(0, 0.5, 19)
    flags = flag_against_clean(scores, clean, 0.1)
    assert flags.method == "conformal"
    assert flags.flagged.tolist() == [True, True, False]
    assert flags.p_value[:2].tolist() == pytest.approx([1 / 20, 1 / 20])
    assert torch.equal(flags.flagged, flags.q_value <= 0.1)
    assert (flags.count, flags.calibration_pairs, flags.warning) == (2, 19, None)
    few = flag_against_clean(scores, clean[:3], 0.1)
    assert few.count == 0
    assert "3 calibration pairs" in few.warning


def test_flags_by_estimate_are_the_most_suspicious_of_as_many_as_look_wrong() -> None:
    g = torch.Generator().manual_seed(0)
    cosine = torch.cat([torch.randn(800, generator=g) * 0.05 + 0.3, torch.randn(200, generator=g) * 0.05])
    order = torch.randperm(1000, generator=g).double()  # a suspicion of its own
    flags = flag_by_estimate(order, cosine, 0.05)
    assert flags.method == "estimate"
    assert flags.noise_rate == pytest.approx(0.2, abs=0.02)
    assert flags.p_value is flags.q_value is None
    assert 150 < flags.count < 250
    assert torch.equal(flags.flagged, order >= 1000 - flags.count)
    nothing = flag_by_estimate(order, torch.full((1000,), 0.5), 0.05)
    assert (nothing.count, nothing.noise_rate) == (0, 0.0)
