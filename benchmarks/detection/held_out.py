"""Scores of a pair by a model that has not seen it: cross-fitting, of our heads and of a classifier."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ecif.batches import Batch, cut_batches, plan_batches
from ecif.embeddings import square_heads
from ecif.fit import fit
from ecif.fit.settings import FitSettings
from ecif.methods import loss_against_all
from ecif.objective import Objective
from ecif.similarity import normalise

Scorer = Callable[[Tensor], Tensor]
"""Places (k,) of pairs to their scores, (k,) or (k, columns)."""


def cross_fit(train: Callable[[Tensor], Scorer], n: int, folds: int, seed: int) -> Tensor:
    """The scores of n pairs, each by the training that left it out: (n,) or (n, columns) float64, the scorer's sign.

    Cross-validated prediction (Stone 1974) as confident learning uses it (arXiv 1911.00068, section 2), with the folds
    drawn at random: pairs have no classes to stratify by.

    Args:
        train: is given the places (int64, ascending) to train on, `folds` times, and returns a scorer.

    Raises:
        ValueError: not 2 ≤ folds ≤ n.
    """
    if not 2 <= folds <= n:
        raise ValueError("folds must lie between 2 and n")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held, parts = [part.sort().values for part in order.tensor_split(folds)], []
    for places in held:
        stays = torch.ones(n, dtype=torch.bool)
        stays[places] = False
        parts.append(train(stays.nonzero()[:, 0])(places).detach().double().cpu())
    scores = torch.cat(parts)
    return scores[torch.cat(held).argsort()]


class CrossFitted(NamedTuple):
    """loss, cosine: (n,) float64 each, higher = more suspicious."""

    loss: Tensor
    cosine: Tensor


def cross_fitted(
    images: Tensor,
    texts: Tensor,
    caption_group: Tensor,
    *,
    folds: int = 5,
    seed: int = 0,
    temperature: float = 0.01,
    l2: float = 0.3,
    batch_size: int = 128,
    epochs: int = 200,
) -> CrossFitted:
    """Two square heads fitted without the pair, else as `ecif.embeddings.rank_embeddings` fits them.

    They start from the identity. `loss` is that of the image against all distinct captions of the n pairs, the left-out
    ones included; `cosine` is −cosine, both after the heads. Not a published method: our objective (arXiv 2411.11667)
    in the out-of-sample way of confident learning. A caption that several pairs share can be in the fit although the
    pair is not.

    Args:
        images, texts: (n, E) alike. caption_group: (n,) int64, equal value = equal caption.

    Raises:
        ValueError: shapes that do not agree, or a setting out of its range.
    """
    n = len(images)
    if images.ndim != 2 or images.shape != texts.shape or caption_group.shape != (n,):
        raise ValueError("images and texts must be (n, E) alike, caption_group (n,)")
    wide = torch.promote_types(torch.promote_types(images.dtype, texts.dtype), torch.float32)
    x, y = images.to(wide), texts.to(wide)
    image_group = torch.unique(x, dim=0, return_inverse=True)[1]
    eye = torch.eye(x.shape[1], dtype=wide)
    start = {"image.weight": eye, "text.weight": eye.clone()}

    def train(places: Tensor) -> Scorer:
        order = places[plan_batches(len(places), batch_size, 1, seed)[0]]
        cuts = cut_batches(order, batch_size)

        def batches() -> Iterator[Batch]:
            return (Batch(x[cut], y[cut], caption_group[cut], image_group[cut]) for cut in cuts)

        objective = Objective(square_heads, 1 / temperature, l2, start, len(places))
        params = fit(objective, start, batches, FitSettings(epochs)).params
        text, image = square_heads(params, x, y)
        loss = loss_against_all(image, text, caption_group, scale=1 / temperature)
        cosine = (normalise(image) * normalise(text)).sum(1)
        return torch.stack([loss, -cosine], 1).__getitem__

    return CrossFitted(*cross_fit(train, n, folds, seed).unbind(1))


def confident_learning(images: Tensor, label: Tensor, *, folds: int = 5, seed: int = 0) -> Tensor:
    """−self-confidence, (n,) float64, higher = more suspicious: what cleanlab ranks labels by unless asked otherwise.

    Self-confidence is the out-of-sample probability of the given label (Northcutt, Jiang and Chuang, JAIR 2021, arXiv
    1911.00068; cleanlab's `rank.get_label_quality_scores`, whose default method is `self_confidence`, unadjusted).
    The classifier is that of cleanlab's `CleanLearning` by default: scikit-learn's logistic regression with its default
    l2 penalty (C = 1), in 5 stratified, shuffled folds. Ours differs: its input is unit image embeddings, as the
    package leaves the features to the user; and it may take 1,000 iterations, as 100, the default, need not suffice.
    A class that the other folds lack has probability 0, as in cleanlab.

    Args:
        images: (n, E). label: (n,) int64, at least two classes, one of them with `folds` members.

    Raises:
        ValueError: shapes that do not agree, or classes that cannot be cut into folds.
    """
    from sklearn.linear_model import LogisticRegression  # here, because it takes a second to import
    from sklearn.model_selection import StratifiedKFold

    if images.ndim != 2 or label.shape != (len(images),):
        raise ValueError("images must be (n, E), label (n,)")
    features, given = normalise(images.double()).numpy(), label.numpy()
    confidence = torch.zeros(len(images), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        cuts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, given))
    for rest, held in cuts:
        classifier = LogisticRegression(max_iter=1000).fit(features[rest], given[rest])
        probability = torch.from_numpy(classifier.predict_proba(features[held])).double()
        hit = label[torch.from_numpy(held)][:, None] == torch.from_numpy(classifier.classes_)
        confidence[torch.from_numpy(held)] = (probability * hit).sum(1)
    return -confidence
