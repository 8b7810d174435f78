"""Suspicion learned from mismatches among the pairs themselves."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ecif import learn_suspicion, normalise
from ecif.detection.calibrator import Calibrator, auroc, normal_scores, normal_scores_among
from ecif.detection.canonical import Covariances
from ecif.detection.contrast import contrast
from ecif.detection.groups import Groups
from ecif.detection.injection import exchange
from ecif.detection.learned import looks
from ecif.methods import lemon

N, WRONG = 400, 60


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor, Tensor]:
    """images, texts (N, 12) of a meaning of 6 dimensions; the first pairs have each other's texts; wrong (N,)."""
    g = torch.Generator().manual_seed(0)
    latent = torch.randn(N, 6, generator=g)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=g))[0]
    images, texts = (torch.cat([latent, torch.randn(N, 6, generator=g)], 1) for _ in range(2))
    texts = (texts @ turn) + 0.05 * torch.randn(N, 12, generator=g)
    texts[:WRONG] = texts[:WRONG].roll(1, 0)
    return images, texts, torch.arange(N) < WRONG


@pytest.fixture
def aligned(pairs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The same, the texts turned back: a model that knows what goes together."""
    g = torch.Generator().manual_seed(0)
    torch.randn(N, 6, generator=g)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=g))[0]
    images, texts, wrong = pairs
    return images, texts @ turn.mT, wrong


def numbers(n: int) -> Tensor:
    return torch.arange(n)


def test_modalities_that_were_never_aligned_are_turned_towards_each_other(pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    images, texts, wrong = pairs
    learned = learn_suspicion(images, texts, None, numbers(N), numbers(N), scale=100.0, seed=0)
    cosine = torch.linalg.vecdot(normalise(images), normalise(texts))
    assert auroc(-cosine, wrong) < 0.65  # the model as given knows nothing
    assert auroc(learned.suspicion, wrong) > 0.95
    turned = sum(weight for name, weight in learned.weights.items() if "turned" in name)
    assert turned > 0.8 * sum(learned.weights.values())


def test_what_was_learned_says_how(aligned: tuple[Tensor, Tensor, Tensor]) -> None:
    images, texts, wrong = aligned
    seen: list[int] = []
    learned = learn_suspicion(
        images, texts, None, numbers(N), numbers(N), scale=10.0, seed=0, on_point=lambda: seen.append(1)
    )
    assert auroc(learned.suspicion, wrong) > 0.95
    assert learned.reason is None
    assert len(seen) == looks(N)
    assert learned.contributions.shape == (N, len(learned.columns))
    torch.testing.assert_close(learned.contributions.sum(1), learned.suspicion)
    assert all(weight >= 0 for weight in learned.weights.values())
    assert learned.injected_auroc is not None
    assert learned.injected_auroc > 0.8
    assert sum(learned.injected.values()) == len(learned.injected_scores) == pytest.approx(0.6 * N, abs=12)
    assert learned.stability is not None
    assert learned.stability.rank_correlation > 0.7
    # The caption that fits better is its own, which the pair before has.
    found = (learned.better[:WRONG] == (torch.arange(WRONG) + 1) % WRONG).double().mean()
    assert float(found) > 0.7
    again = learn_suspicion(images, texts, None, numbers(N), numbers(N), scale=10.0, seed=0)
    assert torch.equal(again.suspicion, learned.suspicion)


def test_pairs_that_exchanged_captions_name_each_other(aligned: tuple[Tensor, Tensor, Tensor]) -> None:
    images, texts, _ = aligned
    texts = texts.clone()
    texts[:WRONG] = texts[:WRONG].roll(-1, 0)  # right again
    texts[[0, 1]] = texts[[1, 0]]
    learned = learn_suspicion(images, texts, None, numbers(N), numbers(N), scale=10.0, seed=0)
    assert learned.exchanged[:2].tolist() == [1, 0]


def test_pairs_are_treated_alike_wherever_they_stand(aligned: tuple[Tensor, Tensor, Tensor]) -> None:
    """Clean pairs that calibrate stay exchangeable with the others: no order but chance comes in."""
    images, texts, wrong = aligned
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    there = learn_suspicion(images, texts, None, numbers(N), numbers(N), scale=10.0, seed=0)
    here = learn_suspicion(images[order], texts[order], None, numbers(N), numbers(N), scale=10.0, seed=0)
    ranks = torch.stack([normal_scores(there.suspicion[order]), normal_scores(here.suspicion)])
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.8
    assert abs(auroc(there.suspicion, wrong) - auroc(here.suspicion, wrong[order])) < 0.03


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y, c: (x[:20], y[:20], c[:20]), "20 pairs are fewer"),
        (lambda x, y, c: (x, y[:1].expand_as(y), torch.zeros_like(c)), "all captions are equal"),
        (lambda x, y, c: (x[:1], y[:1], c[:1]), "1 pairs are fewer"),
    ],
)
def test_where_nothing_can_be_learned_columns_weigh_the_same(
    aligned: tuple[Tensor, Tensor, Tensor], change: Callable[..., tuple[Tensor, Tensor, Tensor]], says: str
) -> None:
    images, texts, captions = change(aligned[0], aligned[1], numbers(N))
    n = len(images)
    learned = learn_suspicion(images, texts, None, captions, numbers(n), scale=10.0, seed=0)
    assert says in str(learned.reason)
    assert bool(learned.suspicion.isfinite().all())
    assert learned.stability is None
    assert learned.injected_auroc is None
    assert len(set(learned.weights.values())) == 1


def test_of_many_pairs_a_sample_is_learned_from_and_all_are_scored(
    pairs: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, texts, wrong = pairs
    whole = learn_suspicion(images, texts, None, numbers(N), numbers(N), scale=10.0, seed=0)
    monkeypatch.setattr("ecif.detection.learned.SAMPLE", 250)
    seen: list[int] = []
    learned = learn_suspicion(
        images, texts, None, numbers(N), numbers(N), scale=10.0, seed=0, on_point=lambda: seen.append(1)
    )
    assert sum(learned.injected.values()) == len(learned.injected_scores) == pytest.approx(0.6 * 250, abs=12)
    assert len(seen) == looks(N)
    torch.testing.assert_close(learned.contributions.sum(1), learned.suspicion)
    assert auroc(learned.suspicion, wrong) > auroc(whole.suspicion, wrong) - 0.02
    # On one scale with what is injected: the share of the injected pairs that a pair is above is about the same.
    above = [(of.suspicion[:, None] > of.injected_scores).double().mean() for of in (learned, whole)]
    assert float(above[0]) == pytest.approx(float(above[1]), abs=0.05)


def test_where_few_can_exchange_those_that_did_are_scored_too() -> None:
    g = torch.Generator().manual_seed(0)
    images, texts = torch.randn(80, 4, generator=g), torch.ones(80, 4)
    captions = (numbers(80) == 7).long()
    texts[7] = -1.0
    learned = learn_suspicion(images, texts, None, captions, numbers(80), scale=10.0, seed=0)
    assert sum(learned.injected.values()) == 2
    assert bool((learned.contributions != 0).any(1).all())
    assert learned.stability is None


def test_constant_embeddings_are_no_error() -> None:
    learned = learn_suspicion(torch.ones(80, 4), torch.ones(80, 4), None, numbers(80), numbers(80), scale=10.0, seed=0)
    assert bool(learned.suspicion.isfinite().all())


def test_an_exchange_uses_every_caption_as_often_as_before() -> None:
    g = torch.Generator().manual_seed(0)
    texts = normalise(torch.randn(300, 8, generator=g))
    captions = [
        f"a {['red', 'blue', 'green'][i % 3]} {['cat', 'dog', 'car', 'tree'][i % 4]} number {i}" for i in range(300)
    ]
    groups, spared = Groups.by(torch.arange(300)), torch.arange(300) < 100
    drawn = exchange(texts, captions, groups, 0.2, 0, 0, spared)
    assert sorted(drawn.caption_of.tolist()) == list(range(300))
    assert int(drawn.injected.sum()) == 60
    assert not bool(drawn.injected[:100].any())
    assert set(drawn.kinds) == {"any", "near", "one_word"}
    places = torch.nonzero(drawn.injected)[:, 0].tolist()
    partners = [int(drawn.caption_of[place]) for place in places]
    assert all(int(drawn.caption_of[partner]) == place for place, partner in zip(places, partners, strict=True))
    other = exchange(texts, captions, groups, 0.2, 0, 1, spared)
    assert not torch.equal(other.caption_of, drawn.caption_of)


def test_equal_captions_are_never_exchanged() -> None:
    texts = normalise(torch.randn(100, 4, generator=torch.Generator().manual_seed(0)))
    groups = Groups.by(torch.arange(100) % 2)
    drawn = exchange(texts[groups.first][groups.of], None, groups, 0.3, 0, 0, torch.zeros(100, dtype=torch.bool))
    moved = drawn.injected
    assert bool((groups.of[drawn.caption_of[moved]] != groups.of[moved]).all())


def test_contrast_is_the_loss_among_distinct_others() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (normalise(torch.randn(7, 5, generator=g, dtype=torch.float64)) for _ in range(2))
    caption, image = torch.tensor([0, 1, 1, 2, 3, 4, 5]), torch.tensor([0, 1, 2, 2, 3, 4, 5])
    y[2], x[3] = y[1], x[2]
    answer = contrast(x, y, Groups.by(caption), Groups.by(image), scale=3.0)
    for n in range(7):
        own = 3 * float(x[n] @ y[n])
        of_image = {int(caption[k]) for k in range(7) if image[k] == image[n]}
        of_caption = {int(image[k]) for k in range(7) if caption[k] == caption[n]}
        others = {int(caption[k]): k for k in range(7) if int(caption[k]) not in of_image}
        shown = {int(image[k]): k for k in range(7) if int(image[k]) not in of_caption}
        s = torch.tensor([own, *(3 * float(x[n] @ y[k]) for k in others.values())], dtype=torch.float64)
        t = torch.tensor([own, *(3 * float(y[n] @ x[k]) for k in shown.values())], dtype=torch.float64)
        assert float(answer.loss[n]) == pytest.approx(float(s.logsumexp(0) + t.logsumexp(0)) - 2 * own)
        assert float(answer.margin[n]) == pytest.approx((float(s[1:].max() + t[1:].max()) - 2 * own) / 3)
        best = max(others.values(), key=lambda k: float(x[n] @ y[k]))
        expected = int(caption[best]) if float(x[n] @ y[best]) > float(x[n] @ y[n]) else None
        assert (int(caption[answer.better[n]]) if answer.better[n] >= 0 else None) == expected


def test_a_sample_of_others_stands_for_all() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (normalise(torch.randn(3000, 6, generator=g)) for _ in range(2))
    groups = Groups.by(torch.arange(3000))
    whole, sample = (contrast(x, y, groups, groups, scale=5.0, most=most).loss for most in (3000, 1000))
    assert float((whole - sample).abs().mean()) < 0.1
    assert float((lemon(x, y, most=1000) - lemon(x, y)).abs().mean()) < 0.3


def test_canonical_variables_are_those_of_the_textbook() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, 4, generator=g), torch.randn(500, 4, generator=g)
    y[:, :2] = x[:, :2] + 0.1 * torch.randn(500, 2, generator=g)
    (turned,) = Covariances.of(x, y).turned((1e-9,))
    both = torch.stack([turned.images(x), turned.texts(y)]).double()
    torch.testing.assert_close(both.norm(dim=2), torch.ones(2, 500, dtype=torch.float64))
    assert float(torch.linalg.vecdot(both[0], both[1]).mean()) > 0.9
    (lone,) = Covariances.of(torch.ones(5, 3), torch.ones(5, 3)).turned((0.1,))
    assert bool(lone.images(torch.ones(5, 3)).isfinite().all())


def test_an_exchange_of_texts_changes_the_covariances_as_if_they_were_made_anew() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 4, generator=g), torch.randn(300, 4, generator=g)
    order = torch.arange(300)
    order[:40] = order[:40].roll(1)
    changed = Covariances.of(x, y).with_exchanged(x[:40], y[:40], y[order[:40]])
    torch.testing.assert_close(changed.cross, Covariances.of(x, y[order]).cross)


def test_a_model_that_turning_gains_nothing_on_is_judged_by_as_given(
    aligned: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, texts, _ = aligned
    monkeypatch.setattr("ecif.detection.learned.GAIN", 0.5)
    learned = learn_suspicion(images, texts, None, numbers(N), numbers(N), scale=10.0, seed=0)
    assert {name for name, weight in learned.weights.items() if weight} <= {
        "clip_score, as given",
        "contrast_loss, as given",
    }


def test_normal_scores_of_others_are_those_of_the_reference_and_keep_the_order() -> None:
    reference = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0])
    torch.testing.assert_close(normal_scores_among(reference, reference), normal_scores(reference))
    others = torch.tensor([-10.0, 0.0, 1.5, 2.0, 4.0, 6.0, 60.0])
    scores = normal_scores_among(others, reference)
    assert bool((scores.diff() > 0).all())
    assert normal_scores_among(others, torch.ones(4)).tolist() == [0.0] * 7


def test_a_calibrator_weighs_what_tells_and_turns_nothing_round() -> None:
    g = torch.Generator().manual_seed(0)
    injected = torch.arange(1000) < 200
    tells, says_nothing, misleads = (torch.randn(1000, generator=g) + shift * injected for shift in (2.0, 0.0, -1.0))
    calibrator = Calibrator.fit({"a": tells, "b": says_nothing, "c": misleads}, injected)
    assert calibrator.weights["a"] > 10 * calibrator.weights["b"]
    assert calibrator.weights["c"] >= 0
    assert calibrator.auroc == pytest.approx(auroc(tells, injected), abs=0.02)
    with pytest.raises(ValueError, match="injected"):
        Calibrator.fit({"a": tells}, torch.zeros(1000, dtype=torch.bool))
