"""The methods that people use instead of ours, in their authors' own forms, on embeddings.

Every function returns (n,) float64 with higher = more suspicious (a sign is turned where the authors score quality),
is deterministic from its seed, and says in which point it must differ from what its authors ran.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.detection.held_out import CrossFitted, confident_learning, cross_fit, cross_fitted
from benchmarks.detection.lemon import Weights, lemon, lemon_labels, lemon_tuned
from ecif.similarity import normalise

__all__ = [
    "CrossFitted",
    "Weights",
    "aum",
    "aum_classifier",
    "aum_contrastive",
    "clip_logits",
    "clip_score",
    "confident_learning",
    "cross_fit",
    "cross_fitted",
    "lemon",
    "lemon_labels",
    "lemon_tuned",
    "neg_clip_loss",
]

_CHUNK = 1024


def clip_score(images: Tensor, texts: Tensor) -> Tensor:
    """−cosine, (n,), of embeddings (n, E) alike.

    Hessel et al., EMNLP 2021, arXiv 2104.08718. They clip negative cosines to 0 and multiply by 2.5; neither is done,
    as the one would tie the most suspicious pairs and the other changes no rank.
    """
    _check_alike(images, texts)
    return -(normalise(images.double()) * normalise(texts.double())).sum(1)


def clip_logits(images: Tensor, label_texts: Tensor, label: Tensor, *, temperature: float = 0.01) -> Tensor:
    """−p(given label | image), (n,): the softmax of the image's cosines to the texts of all labels.

    "CLIP Logits" in LEMoN (arXiv 2407.18941), there by the formula of Feng et al. (CLIPCleaner, ACM MM 2024, arXiv
    2408.10012) at temperature 1. Liang et al. (arXiv 2310.10463, IJCV 2024) proposed it too and set 0.01 in their later
    version; LEMoN's authors then measured 0.01, 0.015, 0.07 and 1 and saw this baseline nearest to theirs at 0.01
    (README of github.com/MLforHealth/LEMoN, January 2026). 0.01 is therefore the default; 1 gives the figure of the
    paper. Ours differs in that the labels' texts are whatever the caller embeds, not an ensemble of prompts.

    Args:
        images: (n, E). label_texts: (C, E), the text of each of C distinct labels. label: (n,) int64 in [0, C).

    Raises:
        ValueError: shapes that do not agree.
    """
    if images.ndim != 2 or label_texts.shape[1:] != images.shape[1:] or label.shape != (len(images),):
        raise ValueError("images must be (n, E), label_texts (C, E), label (n,)")
    logits = normalise(images.double()) @ normalise(label_texts.double()).mT / temperature
    return -logits.softmax(1).gather(1, label[:, None])[:, 0]


def neg_clip_loss(
    images: Tensor,
    texts: Tensor,
    *,
    temperature: float = 0.01,
    batch_size: int = 32_768,
    repeats: int = 10,
    seed: int = 0,
) -> Tensor:
    """−negCLIPLoss, (n,): (τ/2)·(log Σ_j e^{x_i·y_j/τ} + log Σ_j e^{x_j·y_i/τ}) − x_i·y_i, a mean over random batches.

    That is τ times the pair's CLIP loss. Wang et al., NeurIPS 2024, arXiv 2405.19547 (later named s-CLIPLoss);
    `cal_new_clip_score` in `baselines/vas2.py` of github.com/ypwang61/negCLIPLoss_NormSim. τ = 0.01 and batches of
    32,768 are theirs; their scripts average 5 to 100 random divisions. As in their code, equal captions are negatives
    of each other. Ours differs: up to 32,768 pairs are a single batch, where all repeats are the same, so one is
    computed; and a division is into batches of nearly equal size, where theirs leaves a remainder, in which a pair that
    is alone would have no loss. `temperature` should be that of the model.

    Raises:
        ValueError: shapes that differ, batch_size below 2, or no repeat.
    """
    _check_alike(images, texts)
    if batch_size < 2 or repeats < 1:
        raise ValueError("batch_size must be at least 2 and repeats at least 1")
    x, y = normalise(images.double()), normalise(texts.double())
    n, draw = len(x), torch.Generator().manual_seed(seed)
    batches = -(-n // batch_size)
    repeats = repeats if batches > 1 else 1
    normaliser = torch.zeros(n, dtype=torch.float64)
    for _ in range(repeats):
        for batch in torch.randperm(n, generator=draw).tensor_split(batches):
            for here, there in ((x[batch], y[batch]), (y[batch], x[batch])):
                rows = [(some @ there.mT / temperature).logsumexp(1) for some in torch.split(here, _CHUNK)]
                normaliser[batch] += 0.5 * temperature * torch.cat(rows)
    return normaliser / repeats - (x * y).sum(1)


def aum(margins: Tensor) -> Tensor:
    """−area under the margin, (n,): minus the mean over T epochs of the margins (T, n).

    A margin is the given label's logit minus the largest other. Pleiss et al., NeurIPS 2020,
    arXiv 2001.10528; `AUMCalculator` of github.com/asappresearch/aum.
    """
    return -margins.double().mean(0)


def aum_classifier(images: Tensor, label: Tensor, *, epochs: int = 150, seed: int = 0) -> Tensor:
    """AUM of a linear classifier on frozen image features, trained on the labels as given, (n,).

    The authors' settings (`train_for_aum_computation` of their `examples/paper_replication/runner.py`): SGD, learning
    rate 0.1 that never drops, Nesterov momentum 0.9, weight decay 1e-4, batches of 64, 150 epochs; a margin is that at
    the moment the pair is trained on, and the first epoch's are dropped. Ours differs: they train a whole network (a
    ResNet-32), here only its last layer, on features standardised per column in place of the network's batch
    normalisation; weights start at zero. Their indicator samples set a threshold and change no rank: left out.

    Args:
        images: (n, E). label: (n,) int64, at least two distinct.

    Raises:
        ValueError: shapes that do not agree, one label only, or fewer than two epochs.
    """
    if images.ndim != 2 or label.shape != (len(images),) or epochs < 2:
        raise ValueError("images must be (n, E), label (n,), epochs at least 2")
    names, given = torch.unique(label, return_inverse=True)
    if len(names) < 2:
        raise ValueError("a margin needs at least two labels")
    n, draw = len(images), torch.Generator().manual_seed(seed)
    x = normalise(images.double())
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-12)
    x = torch.cat([x, x.new_ones(n, 1)], 1)  # the bias
    theta = x.new_zeros(x.shape[1], len(names))
    velocity = torch.zeros_like(theta)
    margins = x.new_zeros(epochs, n)
    for epoch in range(epochs):
        for batch in torch.split(torch.randperm(n, generator=draw), 64):
            logits = x[batch] @ theta
            margins[epoch, batch] = _margin(logits, given[batch])
            residual = logits.softmax(1)
            residual[torch.arange(len(batch)), given[batch]] -= 1
            gradient = x[batch].mT @ residual / len(batch) + 1e-4 * theta
            velocity = 0.9 * velocity + gradient
            theta = theta - 0.1 * (gradient + 0.9 * velocity)
    return aum(margins[1:])


def aum_contrastive(checkpoints: Iterable[tuple[Tensor, Tensor]], caption_group: Tensor) -> Tensor:
    """AUM of a contrastive training, (n,): the margin at every checkpoint, as a mean of both directions.

    Image to text: the own cosine minus the largest to another caption. Text to image: the own cosine minus the largest
    to an image of another caption. Ours differs from the authors' statistic (see `aum`): it needs no classes; logits
    are cosines without the scale, so that a learned temperature does not weigh the epochs; and margins are those of
    saved checkpoints, which should be evenly spaced and leave out the random start.

    Args:
        checkpoints: images and texts (n, E) as each embeds them.
        caption_group: (n,) int64, equal value = equal caption.

    Raises:
        ValueError: shapes that do not agree, no checkpoint, or one caption only.
    """
    if bool((caption_group == caption_group[:1]).all()):
        raise ValueError("a margin needs at least two captions")
    margins = []
    for images, texts in checkpoints:
        _check_alike(images, texts)
        if caption_group.shape != (len(images),):
            raise ValueError("caption_group must be (n,)")
        x, y = normalise(images.double()), normalise(texts.double())
        own = (x * y).sum(1)
        others = [_best_other(here, there, caption_group) for here, there in ((x, y), (y, x))]
        margins.append(own - 0.5 * (others[0] + others[1]))
    if not margins:
        raise ValueError("there is no checkpoint")
    return aum(torch.stack(margins))


def _best_other(here: Tensor, there: Tensor, group: Tensor) -> Tensor:
    parts = []
    for rows in torch.split(torch.arange(len(here)), _CHUNK):
        same = group[rows, None] == group
        parts.append((here[rows] @ there.mT).masked_fill(same, -torch.inf).amax(1))
    return torch.cat(parts)


def _margin(logits: Tensor, given: Tensor) -> Tensor:
    """(B,): the given label's logit minus the largest other."""
    other = logits.scatter(1, given[:, None], -torch.inf).amax(1)
    return logits.gather(1, given[:, None])[:, 0] - other


def _check_alike(images: Tensor, texts: Tensor) -> None:
    if images.ndim != 2 or images.shape != texts.shape:
        raise ValueError("images and texts must be (n, E) alike")
