"""Groups of pairs: who stands together, what share of each is wrong, and flags that hold in each."""

import math
from collections import Counter
from importlib import import_module

import pytest
import torch
from torch import Tensor

from ecif.detection.flags import flag_against_clean
from ecif.detection.flags_by_group import flag_by_group
from ecif.detection.group_rates import wrong_by_group
from ecif.detection.grouping import LEAST, MOST, by_length, by_value, script_of


def test_the_frequent_values_are_groups_and_all_else_is_the_rest() -> None:
    of = torch.cat([torch.full((49,), 0), torch.full((50,), 1), torch.full((51,), 2), torch.tensor([-1])])
    grouping = by_value(["few", "enough", "most"], of)
    assert grouping.names == ["most", "enough", None]
    assert grouping.of.tolist() == [2] * 49 + [1] * 50 + [0] * 51 + [2]
    assert by_value(["one"], torch.zeros(80, dtype=torch.int64)).names == ["one"]
    assert not by_value([], torch.full((80,), -1)).tells_apart
    many = by_value([f"{n:03}" for n in range(70)], torch.arange(70).repeat(LEAST))
    assert len(many.names) == MOST + 1
    assert many.names[:2] == ["000", "001"]
    assert int((many.of == MOST).sum()) == 20 * LEAST
    (name, _) = by_value(["x" * 200, "y"], torch.arange(2).repeat(LEAST)).names
    assert len(str(name)) == 100


def test_lengths_are_quarters_that_are_put_together_where_they_are_small() -> None:
    words = torch.cat([torch.full((100,), 1), torch.arange(2, 102).repeat_interleave(3), torch.full((7,), -1)])
    grouping = by_length(words)
    assert grouping.names == ["1 word", "2 to 35 words", "36 to 68 words", "69 to 101 words", None]
    assert torch.bincount(grouping.of).tolist() == [100, 102, 99, 99, 7]
    assert by_length(torch.full((90,), 4)).names == ["4 words"]
    assert by_length(torch.arange(40)).names == [None]
    few = by_length(torch.arange(1, 121))
    assert few.names == ["1 to 60 words", "61 to 120 words"]
    assert torch.bincount(few.of).tolist() == [60, 60]


@pytest.mark.parametrize(
    ("caption", "script"),
    [
        ("A dog, 3 years old", "Latin"),
        ("ein Hündchen", "Latin"),
        ("собака on grass, лежит", "Cyrillic"),
        ("一只狗在草地上", "Han"),
        ("草の上の犬", "Japanese"),
        ("カメラ 写真", "Japanese"),
        ("잔디 위의 개", "Hangul"),
        ("ＦＵＬＬ ｗｉｄｔｈ 𝐛𝐨𝐥𝐝", "Latin"),
        ("घास पर कुत्ता", "Devanagari"),
        ("1234 😀 …", None),
        ("", None),
    ],
)
def test_the_script_of_a_caption_is_that_of_most_of_its_letters(caption: str, script: str | None) -> None:
    assert script_of(caption) == script


def test_the_script_of_a_letter_is_that_of_the_unicode_database() -> None:
    """Its name says it: of the scripts in use nearly every letter."""
    regex = import_module("regex")
    for script in ("Latin", "Greek", "Cyrillic", "Armenian", "Hebrew", "Arabic", "Thai", "Tamil", "Georgian", "Hangul"):
        letters = regex.findall(rf"\p{{Script={script}}}", "".join(map(chr, range(0x250, 0x2FFF))) + "가나다 éñß")
        said = Counter(script_of(letter) for letter in letters if letter.isalpha())
        assert said[script] >= 0.97 * sum(said.values()) > 0, (script, said)


def drawn(g: torch.Generator, right: int, wrong: int, shift: float = 0.0) -> Tensor:
    return torch.cat([torch.randn(right, generator=g), torch.randn(wrong, generator=g) + 3]) + shift


def test_the_share_of_wrong_pairs_is_told_in_each_group() -> None:
    g = torch.Generator().manual_seed(0)
    shares = (0.0, 0.1, 0.4, 0.9)
    errors = []
    for _ in range(10):
        scores = torch.cat([drawn(g, round(200 * (1 - share)), round(200 * share)) for share in shares])
        group = torch.arange(4).repeat_interleave(200)
        injected = torch.randn(400, generator=g) + 3
        answer = wrong_by_group(scores, injected, sum(shares) / 4, group, 5)
        assert bool(answer[4].isnan())
        errors.append((answer[:4] - torch.tensor(shares)).abs())
    assert float(torch.stack(errors).mean()) < 0.04
    assert float(torch.stack(errors).max()) < 0.12
    assert wrong_by_group(scores, injected, 0.0, group, 4).tolist() == [0, 0, 0, 0]
    equal = wrong_by_group(torch.ones(10), torch.ones(5), 0.3, torch.zeros(10, dtype=torch.int64), 1)
    assert float(equal) == pytest.approx(0.3, abs=0.01)
    with pytest.raises(ValueError, match="both"):
        wrong_by_group(scores, injected[:0], 0.1, group, 4)


def test_flags_within_groups_hold_in_every_group_where_those_of_all_do_not() -> None:
    """Right pairs of the second group score higher than those of the first: among all they are few."""
    g, runs = torch.Generator().manual_seed(0), 20
    group, wrong = torch.arange(2).repeat_interleave(torch.tensor([800, 200])), torch.zeros(1000, dtype=torch.bool)
    wrong[500:800] = wrong[990:] = True
    of_clean = torch.arange(2).repeat_interleave(300)
    broken, found = {"together": 0, "apart": 0}, 0.0
    for _ in range(runs):
        scores = torch.randn(1000, generator=g) + 4 * group
        scores[wrong] = torch.randn(310, generator=g) + 7
        calibration = torch.randn(600, generator=g) + 4 * of_clean
        apart = flag_by_group(scores, calibration, group, of_clean, 2, 0.2, confidence=0.9).flags.flagged
        together = flag_against_clean(scores, calibration, 0.2, confidence=0.9).flagged
        for name, flagged in (("together", together), ("apart", apart)):
            mine = [flagged & (group == number) for number in range(2)]
            broken[name] += any(int((each & ~wrong).sum()) > 0.2 * int(each.sum()) for each in mine)
        found += float(apart[wrong].double().mean()) / runs
    assert broken["apart"] <= 0.1 * runs + 3 * math.sqrt(0.09 * runs)
    assert broken["together"] > 0.5 * runs
    assert found > 0.8


def test_a_group_of_too_few_clean_pairs_flags_nothing_and_says_how_many_would_be_needed() -> None:
    g = torch.Generator().manual_seed(0)
    scores = drawn(g, 1200, 600, 0.0) * 3
    group = torch.cat([torch.arange(3).repeat(400), torch.arange(3).repeat(200)])
    calibration = torch.randn(400 + 10, generator=g) * 3
    of_clean = torch.cat([torch.zeros(400, dtype=torch.int64), torch.ones(10, dtype=torch.int64)])
    answer = flag_by_group(scores, calibration, group, of_clean, 3, 0.05, confidence=0.9)
    assert answer.calibration_pairs == [400, 10, 0]
    assert answer.confidence == 0.9  # the others take no part of it
    assert answer.clean_pairs_needed[0] is None
    assert answer.clean_pairs_needed[1] is not None
    assert answer.clean_pairs_needed[1] > 19
    assert answer.clean_pairs_needed[2] == 19
    flagged = answer.flags.flagged
    assert int(flagged[group == 0].sum()) > 50
    assert not bool(flagged[group != 0].any())
    assert answer.flags.q_value[group != 0].tolist() == [1.0] * 1200
    assert set(answer.flags.p_value[group == 2].tolist()) == {1.0}
    two = flag_by_group(scores, calibration, group, of_clean, 3, 0.5, confidence=0.9)
    assert two.confidence == pytest.approx(0.9**0.5)
    with pytest.raises(ValueError, match="p-values"):
        flag_by_group(scores, calibration[:0], group, of_clean[:0], 3, 0.05, confidence=0.9)
