import math

import pytest
import torch

from ecif import clean_pairs_needed, conformal_p_values, discoveries, estimate_noise_rate
from ecif.detection.conformal import bounds
from ecif.detection.flags import flag_against_clean, flag_by_estimate
from ecif.detection.likeness import told_apart
from ecif.detection.suspicion import rank_by_influence, rank_for_removal


def test_p_values_count_the_calibration_pairs_at_least_as_suspicious() -> None:
    p = conformal_p_values(torch.tensor([0.5, 3.0, 2.0, -1.0]), torch.tensor([0.0, 2.0, 1.0, 2.0]))
    assert p.tolist() == pytest.approx([4 / 5, 1 / 5, 3 / 5, 1.0])
    with pytest.raises(ValueError, match="calibration"):
        conformal_p_values(torch.zeros(3), torch.zeros(0))
    with pytest.raises(ValueError, match="NaN"):
        conformal_p_values(torch.tensor([math.nan]), torch.zeros(3))


def hypergeometric_tail(n: int, m: int, k: int, v: int) -> float:
    """P(V_k ≥ v): at most k of the m calibration pairs among the first v + k of all."""
    ways = sum(math.comb(m, i) * math.comb(n, v + k - i) for i in range(k + 1) if 0 <= v + k - i <= n)
    return ways / math.comb(n + m, v + k)


@pytest.mark.parametrize(("n", "m"), [(300, 40), (80, 200)])
def test_bounds_hold_together_with_the_stated_confidence(n: int, m: int) -> None:
    ranks = torch.tensor([0, 1, 2, 4])
    bound = bounds(n, m, 0.9, ranks)
    alone = [hypergeometric_tail(n, m, int(k), int(b) + 1) for k, b in zip(ranks, bound, strict=True)]
    assert all(tail <= 0.11 for tail in alone)  # each for itself is surer than all together
    assert alone[0] > 0.02  # and none is surer than it has to be
    g, missed = torch.Generator().manual_seed(1), 0
    for _ in range(2000):
        calibration = torch.zeros(n + m, dtype=torch.bool)
        calibration[torch.randperm(n + m, generator=g)[:m]] = True
        places = torch.nonzero(calibration)[:, 0]  # from the top
        missed += bool((places[ranks] - ranks > bound).any())
    assert missed / 2000 < 0.1 + 3 * math.sqrt(0.09 / 2000) + 0.01
    assert missed / 2000 > 0.04


@pytest.mark.parametrize("m", [100, 400])
def test_the_false_discovery_proportion_of_a_run_is_within_any_rate_as_surely_as_stated(m: int) -> None:
    g, runs = torch.Generator().manual_seed(0), 60
    broken, found = 0, []
    for _ in range(runs):
        scores = torch.randn(1000, generator=g)
        scores[:200] += 4
        q = discoveries(scores, torch.randn(m, generator=g), 0.9).q_value
        proportions = [
            (float((q[200:] <= rate).sum()) / max(1, int((q <= rate).sum())), rate) for rate in (0.02, 0.05, 0.1, 0.3)
        ]
        broken += any(proportion > rate for proportion, rate in proportions)
        found.append(float((q[:200] <= 0.05).double().mean()))
    assert broken <= 0.1 * runs + 3 * math.sqrt(0.09 * runs)
    if m == 400:
        assert sum(found) / runs > 0.4


def test_a_more_suspicious_pair_has_no_larger_q_value() -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.cat([torch.randn(300, generator=g), torch.randn(100, generator=g) + 3])
    answer = discoveries(scores, torch.randn(200, generator=g), 0.8)
    assert bool((answer.q_value[scores.argsort(descending=True)].diff() >= 0).all())
    assert 300 <= answer.right_at_most < 400
    with pytest.raises(ValueError, match="confidence"):
        discoveries(scores, scores, 1.0)


def test_too_small_a_clean_set_is_told_and_what_would_do() -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(1000, generator=g)
    scores[:200] += 6
    flags = flag_against_clean(scores, torch.randn(50, generator=g), 0.05, confidence=0.9)
    assert flags.count == 0
    assert flags.warning is not None
    needed = clean_pairs_needed(scores, torch.randn(50, generator=g), 0.05, 0.9)
    assert needed is not None
    assert f"about {needed:,} would be needed" in flags.warning
    assert flag_against_clean(scores, torch.randn(3 * needed, generator=g), 0.05, confidence=0.9).count > 150
    hopeless = flag_against_clean(torch.randn(1000, generator=g), torch.randn(50, generator=g), 0.01, confidence=0.9)
    assert "more of them would not help" in str(hopeless.warning)


def test_the_noise_rate_is_told_by_what_was_injected() -> None:
    g = torch.Generator().manual_seed(0)
    for rate in (0.05, 0.2, 0.4):
        scores = torch.randn(4000, generator=g)
        scores[: int(4000 * rate)] += 3
        answer = estimate_noise_rate(scores, torch.randn(400, generator=g) + 3)
        assert answer == pytest.approx(rate, abs=0.08)
    assert estimate_noise_rate(torch.randn(10, generator=g), torch.randn(400, generator=g)) is None
    assert estimate_noise_rate(torch.randn(4000, generator=g), torch.zeros(0)) is None


def test_flags_by_estimate_stand_out_further_than_right_pairs_scatter() -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.cat([torch.randn(800, generator=g), torch.randn(200, generator=g) + 5])
    flags = flag_by_estimate(scores, 0.05, injected=torch.randn(400, generator=g) + 5)
    assert flags.method == "estimate"
    assert flags.p_value is None
    assert flags.noise_rate == pytest.approx(0.2, abs=0.06)
    assert float(flags.flagged[800:].double().mean()) > 0.9
    assert int(flags.flagged[:800].sum()) <= 0.1 * flags.count
    assert torch.equal(flags.flagged, flags.q_value <= 0.05)
    assert flags.warning is None
    nothing = flag_by_estimate(torch.randn(1000, generator=g), 0.05)
    assert nothing.count == 0
    assert "do not stand out" in str(nothing.warning)
    for odd in (torch.zeros(0), torch.ones(1), torch.ones(50)):
        assert flag_by_estimate(odd, 0.05).count == 0


def test_a_clean_set_of_another_kind_is_told_from_the_data() -> None:
    g = torch.Generator().manual_seed(0)
    images, texts = torch.randn(600, 8, generator=g), torch.randn(600, 8, generator=g)
    clean = torch.arange(600) >= 400
    auroc, error = told_apart(images, texts, clean)
    assert abs(auroc - 0.5) < 4 * error
    images[400:, 0] += 2
    auroc, error = told_apart(images, texts, clean)
    assert auroc > 0.85
    assert told_apart(images[:3], texts[:3], clean[:3])[1] == 0


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


def test_no_fewer_look_wrong_than_are_flagged() -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.cat([torch.randn(800, generator=g), torch.randn(200, generator=g) + 6])
    unlike = torch.randn(400, generator=g) + 20  # what was injected is far more extreme than what is wrong
    flags = flag_by_estimate(scores, 0.05, injected=unlike)
    assert flags.noise_rate is not None
    assert flags.noise_rate >= 0.95 * flags.count / 1000 > 0.1
    assert flag_by_estimate(torch.randn(1000, generator=g), 0.05).noise_rate is None
