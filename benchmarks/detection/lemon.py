"""LEMoN as its authors publish it (Zhang et al., ICML 2025, arXiv 2407.18941; github.com/MLforHealth/LEMoN at 56da904).

With x the image, y the text, d = 1 − cosine, (x_j, y_j) the k pairs nearest in image space and (x_l, y_l) those nearest
in text space, `run_lemon.py` and `lib/metrics/utils.py` compute

    d(x, y) + β·mean_j d(y, y_j)·e^{τ₁ cos(x, x_j)}·e^{−τ₂ d(x_j, y_j)}
            + γ·mean_l d(x, x_l)·e^{τ₁′ cos(y, y_l)}·e^{−τ₂′ d(x_l, y_l)}.

The first exponent holds the cosine, not the paper's −d: their index returns inner products and only the sign is
turned. So both sums are e^{τ₁} times those of `ecif.methods.lemon`, which has the paper's form.

Where ours must differ, in all three functions:

- The neighbours of a pair are the other pairs of the set under test. The authors score a test set against a reference
  set of up to 50,000; there is no such set here. The pair itself is left out by its place. (Their code drops the first
  result, which is another pair when captions are tied.)
- Of equally near neighbours the first in the order of the set are taken, as an exact search that replaces only by
  something nearer does. Equal captions with equal embeddings are tied for certain: similarities are computed once for
  each distinct row.
- All is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ecif.similarity import normalise

_CHUNK = 512
_K = 30


@dataclass(frozen=True)
class Weights:
    """The numbers that the authors vary; the defaults are those they fix for all data (`notebooks/hparam_drop.ipynb`).

    k: neighbours; beta, gamma: weights of the neighbours in image and in text space; tau_1, tau_2: of both sums.
    """

    k: int = _K
    beta: float = 5.0
    gamma: float = 5.0
    tau_1: float = 0.1
    tau_2: float = 5.0


FIXED = Weights()


def lemon(images: Tensor, texts: Tensor, weights: Weights = FIXED) -> Tensor:
    """LEMoN_FIX for captions: (n,) float64 from embeddings (n, E) alike; higher = more suspicious.

    Raises:
        ValueError: shapes that differ, or fewer than two pairs.
    """
    return _Pairs.of(images, texts).near(weights.k).score(weights)


def lemon_labels(images: Tensor, texts: Tensor, label: Tensor, weights: Weights = FIXED) -> Tensor:
    """LEMoN_FIX where captions are class labels: (n,) float64, higher = more suspicious.

    Their `--use_discrete_for_text`, which they set for CIFAR: d(y, y_j) is 1 where the label differs and else 0. The
    exponent of the first sum then is −τ₁ cos(x, x_j): in this branch their code does not turn the sign, so that nearer
    images weigh a little less. It is kept, as their figures come from it. Neighbours in text space remain those of the
    embedding.

    Args:
        images, texts: (n, E) alike, the text being the label's prompt ("A photo of a …" in their runs).
        label: (n,) int64.

    Raises:
        ValueError: shapes that differ, or fewer than two pairs.
    """
    if label.shape != (len(images),):
        raise ValueError("label must be (n,)")
    return _Pairs.of(images, texts).near(weights.k, label).score(weights)


def lemon_tuned(
    images: Tensor, texts: Tensor, validation: tuple[Tensor, Tensor], wrong: Tensor
) -> tuple[Tensor, Weights]:
    """LEMoN_OPT, tuned on labelled pairs: scores (n,) float64, higher = more suspicious, and the weights of largest F1.

    The authors' grid: k in 1 to 50, β and γ in 0, 5, …, 100, τ₁ and τ₂ in 0, 1, 5, 10 (equal in both sums). As theirs,
    validation pairs have their neighbours in the set under test. Ours differs: they go on from the grid with Powell,
    Nelder-Mead and L-BFGS and tune the τ of both sums apart; their F1 is that of a threshold found by a local search,
    ours that of the best threshold there is; and Euclidean distance is not tried, which on unit vectors has the same
    neighbours and is d doubled. This score has seen labels: it belongs apart from those that have not.

    Args:
        images, texts: (n, E) alike. validation: images and texts (m, E). wrong: (m,) bool, at least one true.

    Raises:
        ValueError: shapes that do not agree, or no validation pair is wrong.
    """
    x, y = validation
    if wrong.shape != (len(x),) or not bool(wrong.any()):
        raise ValueError("wrong must be (m,) bool with a wrong pair in it")
    pairs, held = _Pairs.of(images, texts), _Pairs.of(x, y, least=1)
    steps = torch.arange(0, 101, 5, dtype=torch.float64)
    beta, gamma = (grid.reshape(-1, 1) for grid in torch.meshgrid(steps, steps, indexing="ij"))
    best, chosen = -1.0, FIXED
    for k in (1, 2, 5, 10, 15, 20, 30, 50):
        near = pairs.near(k, queries=held)
        for tau_1, tau_2 in product((0.0, 1.0, 5.0, 10.0), repeat=2):
            across, back = near.sums(tau_1, tau_2)
            reached = _best_f1(near.own + beta * across + gamma * back, wrong)
            place = int(reached.argmax())  # the first of the best
            if float(reached[place]) > best:
                best = float(reached[place])
                chosen = Weights(k, float(beta[place]), float(gamma[place]), tau_1, tau_2)
    return pairs.near(chosen.k).score(chosen), chosen


def _best_f1(scores: Tensor, wrong: Tensor) -> Tensor:
    """The largest F1 of a threshold, (c,), for every row of scores (c, m); tied scores are flagged together."""
    ordered, order = scores.sort(dim=1, descending=True)
    found = wrong[order].double().cumsum(1)
    flagged = torch.arange(1, scores.shape[1] + 1, dtype=torch.float64)
    f1 = 2 * found / (flagged + wrong.sum())
    split = torch.ones_like(ordered, dtype=torch.bool)
    split[:, :-1] = ordered[:, :-1] != ordered[:, 1:]
    return f1.where(split, 0.0).amax(1)


@dataclass(frozen=True)
class _Near:
    """Of q pairs and their k neighbours on each side.

    own: (q,) d(x, y). image_side, text_side: (q, k) each, the cosine to the neighbour, how far the other halves lie
    apart, and the neighbour's own d. inner: the sign of the cosine in the exponent of the first sum.
    """

    own: Tensor
    image_side: tuple[Tensor, Tensor, Tensor]
    text_side: tuple[Tensor, Tensor, Tensor]
    inner: float

    def sums(self, tau_1: float, tau_2: float) -> tuple[Tensor, Tensor]:
        (cosine, apart, theirs), (cosine_t, apart_t, theirs_t) = self.image_side, self.text_side
        across = (apart * torch.exp(self.inner * tau_1 * cosine - tau_2 * theirs)).mean(1)
        back = (apart_t * torch.exp(tau_1 * cosine_t - tau_2 * theirs_t)).mean(1)
        return across, back

    def score(self, weights: Weights) -> Tensor:
        across, back = self.sums(weights.tau_1, weights.tau_2)
        return self.own + weights.beta * across + weights.gamma * back


@dataclass(frozen=True)
class _Pairs:
    """x, y: unit rows (n, E) float64."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, images: Tensor, texts: Tensor, least: int = 2) -> _Pairs:
        if images.shape != texts.shape or images.ndim != 2 or len(images) < least:
            raise ValueError(f"images and texts must be (n, E) alike, n ≥ {least}")
        return cls(normalise(images.double()), normalise(texts.double()))

    @property
    def own(self) -> Tensor:
        return 1 - (self.x * self.y).sum(1)

    def near(self, k: int, label: Tensor | None = None, queries: _Pairs | None = None) -> _Near:
        """The neighbours of `queries` among these pairs; without it, of every pair among the others."""
        asking = queries or self
        cosine, at = _nearest(self.x, asking.x, k, itself=queries is not None)
        apart = 1 - _cosines(asking.y, self.y, at) if label is None else (label[:, None] != label[at]).double()
        cosine_t, at_t = _nearest(self.y, asking.y, k, itself=queries is not None)
        apart_t = 1 - _cosines(asking.x, self.x, at_t)
        own, inner = self.own, 1.0 if label is None else -1.0
        return _Near(asking.own, (cosine, apart, own[at]), (cosine_t, apart_t, own[at_t]), inner)


def _nearest(rows: Tensor, asking: Tensor, k: int, *, itself: bool) -> tuple[Tensor, Tensor]:
    """Cosine and place (q, k) of the nearest rows, first come of equally near ones; the own place only if `itself`."""
    k = min(k, len(rows) - (not itself))
    distinct, place = torch.unique(rows, dim=0, return_inverse=True)
    cosines, places = [], []
    for at in torch.split(torch.arange(len(asking)), _CHUNK):
        cosine = (asking[at] @ distinct.mT)[:, place]
        if not itself:
            cosine[torch.arange(len(at)), at] = -torch.inf
        ordered, order = cosine.sort(dim=1, descending=True, stable=True)
        cosines.append(ordered[:, :k])
        places.append(order[:, :k])
    return torch.cat(cosines), torch.cat(places)


def _cosines(rows: Tensor, others: Tensor, at: Tensor) -> Tensor:
    """(q, k): row i with the others at its k places."""
    parts = zip(torch.split(rows, _CHUNK), torch.split(at, _CHUNK), strict=True)
    return torch.cat([torch.einsum("qe,qke->qk", some, others[places]) for some, places in parts])
