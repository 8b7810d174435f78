import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from benchmarks.detection.lemon import FIXED
from benchmarks.detection.peers import (
    Weights,
    aum,
    aum_classifier,
    aum_contrastive,
    clip_logits,
    clip_score,
    confident_learning,
    cross_fit,
    cross_fitted,
    lemon,
    lemon_labels,
    lemon_tuned,
    neg_clip_loss,
)
from ecif import methods
from ecif.similarity import normalise

CLASSES = 5


def planted(seed: int = 0, n: int = 150, noise: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, texts (n, 24), labels as given and which are wrong; equal labels have equal texts, of other lengths."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, 24, generator=draw, dtype=torch.float64)
    wordings = centres + 0.5 * torch.randn(CLASSES, 24, generator=draw, dtype=torch.float64)
    shown = torch.arange(n) % CLASSES
    wrong = torch.arange(n) % 11 == 3
    given = torch.where(wrong, (shown + 2) % CLASSES, shown)
    images = centres[shown] + noise * torch.randn(n, 24, generator=draw, dtype=torch.float64)
    return images, 3 * wordings[given], given, wrong


def separates(scores: Tensor, wrong: Tensor, least: float = 0.97) -> bool:
    assert scores.shape == wrong.shape
    assert scores.dtype == torch.float64
    return float((scores[wrong][:, None] > scores[~wrong][None]).double().mean()) >= least


def label_texts(texts: Tensor, label: Tensor) -> Tensor:
    return torch.stack([texts[label == c][0] for c in range(CLASSES)])


def test_planted_wrong_pairs_rank_first_by_every_method() -> None:
    images, texts, label, wrong = planted()
    assert separates(clip_score(images, texts), wrong)
    assert separates(lemon(images, texts), wrong)
    assert separates(lemon_labels(images, texts, label), wrong)
    assert separates(clip_logits(images, label_texts(texts, label), label), wrong)
    assert separates(neg_clip_loss(images, texts), wrong)
    assert separates(aum_contrastive([(images, texts)], label), wrong)
    assert separates(aum_classifier(images, label, epochs=5), wrong, 0.9)
    assert separates(confident_learning(images, label), wrong)


def written_out_lemon(
    images: Tensor, texts: Tensor, weights: Weights, label: Tensor | None = None
) -> tuple[Tensor, list[list[int]], list[list[int]]]:
    """Line by line after the authors' `run_lemon.py` and `utils.py`; the neighbours of each side too."""
    x, y = torch.nn.functional.normalize(images), torch.nn.functional.normalize(texts)
    n, scores, by_image, by_text = len(x), [], [], []
    theirs = [1 - float(x[i] @ y[i]) for i in range(n)]
    for i in range(n):
        others = [j for j in range(n) if j != i]
        near = sorted(others, key=lambda j: -round(float(x[i] @ x[j]), 12))[: weights.k]
        near_text = sorted(others, key=lambda j: -round(float(y[i] @ y[j]), 12))[: weights.k]
        d_n, d_m = 0.0, 0.0
        for j in near:
            inner = float(x[i] @ x[j])
            moved, apart = (-inner, 1 - float(y[i] @ y[j])) if label is None else (inner, float(label[i] != label[j]))
            d_n += apart * math.exp(-weights.tau_1 * moved) * math.exp(-weights.tau_2 * theirs[j]) / weights.k
        for j in near_text:
            moved, apart = -float(y[i] @ y[j]), 1 - float(x[i] @ x[j])
            d_m += apart * math.exp(-weights.tau_1 * moved) * math.exp(-weights.tau_2 * theirs[j]) / weights.k
        scores.append(theirs[i] + weights.beta * d_n + weights.gamma * d_m)
        by_image.append(near)
        by_text.append(near_text)
    return torch.tensor(scores, dtype=torch.float64), by_image, by_text


@pytest.mark.parametrize("weights", [Weights(k=6), Weights(4, 2.0, 7.0, 1.5, 0.5)])
def test_lemon_is_the_authors_code_written_out(weights: Weights) -> None:
    images, texts, label, _ = planted(n=25)
    torch.testing.assert_close(lemon(images, texts, weights), written_out_lemon(images, texts, weights)[0])
    torch.testing.assert_close(
        lemon_labels(images, texts, label, weights), written_out_lemon(images, texts, weights, label)[0]
    )


def test_lemon_has_the_weights_that_the_authors_fix() -> None:
    assert Weights(k=30, beta=5, gamma=5, tau_1=0.1, tau_2=5) == FIXED
    images, texts, _, _ = planted()
    torch.testing.assert_close(lemon(images, texts), lemon(images, texts, FIXED))


def test_lemon_of_the_service_is_the_authors_with_both_sums_smaller_by_e_to_the_tau_1() -> None:
    draw = torch.Generator().manual_seed(1)
    images, texts = torch.randn(2, 80, 16, generator=draw, dtype=torch.float64)  # no ties
    more = 5 * math.exp(0.1)
    torch.testing.assert_close(lemon(images, texts), methods.lemon(images, texts, beta=more, gamma=more))
    assert not torch.allclose(lemon(images, texts), methods.lemon(images, texts))


def test_lemon_tuned_takes_the_best_of_the_grid_on_labelled_pairs() -> None:
    images, texts, _, _ = planted(n=40, noise=2.5)
    held = planted(seed=2, n=20, noise=2.5)
    scores, weights = lemon_tuned(images, texts, (held[0], held[1]), held[3])
    torch.testing.assert_close(scores, lemon(images, texts, weights))

    def f1(weights: Weights) -> float:
        # A validation pair's neighbours lie in the set under test: it joins that set alone.
        pairs = [(torch.cat([images, x[None]]), torch.cat([texts, y[None]])) for x, y in zip(*held[:2], strict=True)]
        reached = torch.stack([lemon(*pair, weights)[-1] for pair in pairs])
        best = 0.0
        for threshold in reached:
            flagged = reached >= threshold
            best = max(best, 2 * float((flagged & held[3]).sum()) / float(flagged.sum() + held[3].sum()))
        return best

    tried = [Weights(*some) for some in product((1, 10), (0.0, 5.0), (0.0, 100.0), (1.0,), (0.0, 5.0))]
    assert f1(weights) >= max(map(f1, tried)) - 1e-12


def test_lemon_tuned_needs_a_wrong_pair() -> None:
    images, texts, _, wrong = planted(n=20)
    with pytest.raises(ValueError, match="wrong"):
        lemon_tuned(images, texts, (images, texts), torch.zeros_like(wrong))


@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_clip_logits_is_the_softmax_over_all_labels(temperature: float) -> None:
    images, texts, label, _ = planted(n=12)
    distinct = label_texts(texts, label)
    x, y = torch.nn.functional.normalize(images), torch.nn.functional.normalize(distinct)
    truth = []
    for i in range(12):
        powers = [math.exp(float(x[i] @ y[c]) / temperature) for c in range(CLASSES)]
        truth.append(-powers[int(label[i])] / sum(powers))
    scores = clip_logits(images, distinct, label, temperature=temperature)
    torch.testing.assert_close(scores, torch.tensor(truth, dtype=torch.float64))


def test_one_batch_of_neg_clip_loss_has_a_closed_form() -> None:
    images, texts, _, _ = planted(n=30)
    S = normalise(images) @ normalise(texts).mT / 0.07
    losses = -0.5 * (S.log_softmax(1).diagonal() + S.log_softmax(0).diagonal())
    torch.testing.assert_close(neg_clip_loss(images, texts, temperature=0.07), 0.07 * losses)


def test_neg_clip_loss_is_the_mean_over_random_batches() -> None:
    images, texts, _, _ = planted(n=9)
    x, y = normalise(images), normalise(texts)
    draw, total = torch.Generator().manual_seed(4), torch.zeros(9, dtype=torch.float64)
    for _ in range(3):
        order = torch.randperm(9, generator=draw)
        for batch in (order[:5], order[5:]):
            for i in batch:
                sums = [sum(math.exp(float(a) / 0.1) for a in side) for side in (y[batch] @ x[i], x[batch] @ y[i])]
                total[i] += 0.05 * (math.log(sums[0]) + math.log(sums[1])) - x[i] @ y[i]
    scores = neg_clip_loss(images, texts, temperature=0.1, batch_size=8, repeats=3, seed=4)
    torch.testing.assert_close(scores, total / 3)


def test_aum_of_margins_by_hand() -> None:
    margins = torch.tensor([[1.0, -2.0], [2.0, -4.0], [6.0, 0.0]])
    assert aum(margins).tolist() == [-3.0, 2.0]


def test_aum_of_a_classifier_is_that_of_the_optimiser_of_torch() -> None:
    images, _, label, _ = planted(n=100)
    x = normalise(images)
    x = (x - x.mean(0)) / x.std(0)
    weight, bias = torch.zeros(24, CLASSES, dtype=torch.float64), torch.zeros(CLASSES, dtype=torch.float64)
    weight.requires_grad_()
    bias.requires_grad_()
    optimiser = torch.optim.SGD([weight, bias], lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    draw, total = torch.Generator().manual_seed(3), torch.zeros(100, dtype=torch.float64)
    for epoch in range(4):
        for batch in torch.randperm(100, generator=draw).split(64):
            logits = x[batch] @ weight + bias
            for i, row in zip(batch.tolist(), logits.tolist(), strict=True):
                own = row.pop(int(label[i]))
                total[i] += (own - max(row)) / 3 if epoch > 0 else 0.0
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, label[batch]).backward()
            optimiser.step()
    torch.testing.assert_close(aum_classifier(images, label, epochs=4, seed=3), -total)


def test_contrastive_aum_is_that_of_margins_to_other_captions() -> None:
    checkpoints = [planted(seed, n=20)[:2] for seed in range(3)]
    group = torch.arange(20) % 7
    truth = torch.zeros(20, dtype=torch.float64)
    for images, texts in checkpoints:
        x, y = normalise(images), normalise(texts)
        for i in range(20):
            other = [j for j in range(20) if group[j] != group[i]]
            best = max(float(x[i] @ y[j]) for j in other), max(float(x[j] @ y[i]) for j in other)
            truth[i] -= (float(x[i] @ y[i]) - sum(best) / 2) / 3
    torch.testing.assert_close(aum_contrastive(checkpoints, group), truth)
    with pytest.raises(ValueError, match="two captions"):
        aum_contrastive(checkpoints, torch.zeros(20, dtype=torch.int64))


def test_cross_fit_never_scores_a_pair_by_a_model_that_saw_it() -> None:
    trained: list[set[int]] = []
    scored: list[int] = []

    def train(places: Tensor) -> Callable[[Tensor], Tensor]:
        seen = set(places.tolist())
        trained.append(seen)

        def score(held: Tensor) -> Tensor:
            assert not seen & set(held.tolist())
            assert len(seen) + len(held) == 23
            scored.extend(held.tolist())
            return 10 * held

        return score

    scores = cross_fit(train, 23, 4, seed=1)
    assert scores.tolist() == [10.0 * i for i in range(23)]  # each at its own place
    assert sorted(scored) == list(range(23))
    assert len(trained) == 4
    first = list(trained)
    trained.clear()
    cross_fit(train, 23, 4, seed=1)
    assert trained == first
    trained.clear()
    cross_fit(train, 23, 4, seed=2)
    assert trained != first


def test_cross_fitted_heads_score_pairs_that_they_were_not_fitted_to() -> None:
    images, texts, label, wrong = planted(n=60)
    result = cross_fitted(images, texts, label, folds=2, epochs=8, seed=5)
    assert separates(result.loss, wrong, 0.9)
    assert separates(result.cosine, wrong, 0.9)
    # A pair's image changes its own score and those of the other fold, and no other of its own fold.
    held = [part.tolist() for part in torch.randperm(60, generator=torch.Generator().manual_seed(5)).tensor_split(2)]
    changed = images.clone()
    place, same, other = held[0][0], torch.tensor(held[0][1:]), torch.tensor(held[1])
    changed[place] = images[(place + 1) % 60]
    again = cross_fitted(changed, texts, label, folds=2, epochs=8, seed=5)
    assert torch.equal(again.loss[same], result.loss[same])
    assert not torch.equal(again.cosine[other], result.cosine[other])
    assert again.loss[place] != result.loss[place]


def test_confident_learning_is_the_probability_without_the_pair() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    images, _, label, _ = planted(n=60)
    folds = StratifiedKFold(3, shuffle=True, random_state=7)
    x = torch.nn.functional.normalize(images).numpy()
    model = LogisticRegression(max_iter=1000)
    probability = cross_val_predict(model, x, label.numpy(), cv=folds, method="predict_proba")
    truth = -torch.from_numpy(probability)[torch.arange(60), label]
    torch.testing.assert_close(confident_learning(images, label, folds=3, seed=7), truth)


def test_confident_learning_gives_a_label_of_one_pair_no_confidence() -> None:
    images, _, label, _ = planted(n=60)
    label[17] = CLASSES
    assert float(confident_learning(images, label)[17]) == 0.0


def test_shapes_that_do_not_agree_are_refused() -> None:
    images, texts, label, _ = planted(n=20)
    for refused in (
        lambda: clip_score(images, texts[1:]),
        lambda: lemon(images, texts[1:]),
        lambda: lemon_labels(images, texts, label[1:]),
        lambda: clip_logits(images, texts, label[1:]),
        lambda: neg_clip_loss(images, texts[1:]),
        lambda: neg_clip_loss(images, texts, batch_size=1),
        lambda: aum_classifier(images, label[1:]),
        lambda: aum_classifier(images, torch.zeros_like(label)),
        lambda: aum_contrastive([(images, texts[1:])], label),
        lambda: aum_contrastive([], label),
        lambda: cross_fitted(images, texts, label[1:]),
        lambda: cross_fit(lambda _: lambda held: held, 5, 6, seed=0),
        lambda: confident_learning(images, label[1:]),
    ):
        with pytest.raises(ValueError):
            refused()
