"""Suspicion learned without labels: from mismatches made of the user's own pairs (`docs/design.md`, section 7).

In each of a few draws some pairs exchange captions (`injection`). The modalities of all pairs as they then are get
turned towards each other, ever more freely (`canonical`), columns are computed of all of them alike, and a calibrator
learns how the columns of the injected pairs differ (`calibrator`). The others are then scored by it; no pair is
injected twice, so that all are scored in a draw at least, and those that were in several get the mean. Everything is
symmetric in the pairs: clean ones that calibrate stay exchangeable with those that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ecif.detection.calibrator import Calibrator, normal_scores
from ecif.detection.canonical import RIDGES, SCALE, canonical
from ecif.detection.contrast import contrast
from ecif.detection.groups import Groups
from ecif.detection.injection import Exchange, exchange
from ecif.detection.suspicion import fractional_ranks
from ecif.methods import lemon
from ecif.similarity import normalise

DRAWS: Final = 2
SHARE: Final = 0.1
"""Of the pairs that are injected in a draw."""

COMPARED: Final = 2048
"""Others that a pair is held against, of each modality: a sample above."""

LEAST: Final = 50
"""Pairs below which nothing is learned."""

AS_GIVEN: Final = "as given"

LOOKS: Final = DRAWS * (1 + len(RIDGES))


@dataclass(frozen=True)
class Learned:
    """What was learned of n pairs.

    Attributes:
        suspicion: (n,) float64, log-odds of being wrong up to a constant.
        contributions: (n, columns) float64, what each of `columns` adds to it.
        weights: of the columns, the mean over the draws.
        injected_auroc: how well injected pairs are told from the user's own, the mean over the draws.
        injected: how many pairs exchanged captions, by kind of partner.
        injected_scores: (m,) float64, the suspicion of the injected pairs of all draws.
        better: (n,) int64, the place of a pair whose caption fits the image better; −1 where none does.
        exchanged: (n,) int64, the place of a pair that looks as if it had exchanged captions with this one; −1.
        stability: the rank correlation of the draws' suspicions; None where only one of them learned.
        reason: why nothing was learned, and columns weigh the same; None where something was.
    """

    suspicion: Tensor
    contributions: Tensor
    columns: list[str]
    weights: dict[str, float]
    injected_auroc: float | None
    injected: dict[str, int]
    injected_scores: Tensor
    better: Tensor
    exchanged: Tensor
    stability: float | None
    reason: str | None = None


def learn_suspicion(
    images: Tensor,
    texts: Tensor,
    captions: Sequence[str] | None,
    caption_group: Tensor,
    image_group: Tensor,
    *,
    scale: float,
    seed: int,
    on_point: Callable[[], None] | None = None,
) -> Learned:
    """Of n pairs, (n, E) each as the model embeds them.

    Args:
        captions: n texts; None where only `caption_group` (n,) int64, and `image_group` of images, say which are equal:
            then none is injected that differs by one word.
        scale: s = 1/τ of the model.
        on_point: called after every look at the pairs, of which there are at most `LOOKS`.

    Raises:
        ValueError: shapes that do not agree.
    """
    n = len(images)
    x, y = normalise(images), normalise(texts)
    pairs = _Pairs(x, y, Groups.by(caption_group), Groups.by(image_group), scale, seed, on_point)
    reason = pairs.reason_not_to_learn()
    if reason is not None:
        return _unlearned(pairs, reason)
    taken = torch.zeros(n, dtype=torch.bool)
    draws: list[_Draw] = []
    beside, groups = y.cpu(), pairs.captions.to("cpu")
    for number in range(DRAWS):
        injected = exchange(beside, captions, groups, SHARE, seed, number, taken)
        taken |= injected.injected
        if bool(injected.injected.any()):
            draws.append(pairs.draw(injected))
        elif draws:  # nobody is left to exchange with; those that did are to be scored with their own captions
            draws.append(pairs.draw(injected, draws[0].calibrator))
        else:
            return _unlearned(pairs, "no two pairs with different captions could exchange them")
    return _together(draws, pairs)


@dataclass(frozen=True)
class _Draw:
    exchange: Exchange
    calibrator: Calibrator
    contributions: Tensor
    better: Tensor

    @property
    def suspicion(self) -> Tensor:
        return self.contributions.sum(1)


@dataclass(frozen=True)
class _Pairs:
    """Unit rows images, texts (n, E), and which are equal."""

    images: Tensor
    texts: Tensor
    captions: Groups
    pictures: Groups
    scale: float
    seed: int
    on_point: Callable[[], None] | None

    def reason_not_to_learn(self) -> str | None:
        if len(self.images) < LEAST:
            return f"{len(self.images)} pairs are fewer than the {LEAST} from which mismatches are learned"
        if len(self.captions) < 2:
            return "all captions are equal: there is no mismatch to learn from"
        return None

    def draw(self, injected: Exchange, calibrator: Calibrator | None = None) -> _Draw:
        """Score all pairs beside those that exchanged captions, by a calibrator that learns from them unless given."""
        caption_of = injected.caption_of.to(self.texts.device)
        texts, group = self.texts[caption_of], self.captions.of[caption_of]
        captions = Groups.by(group)
        columns, better = self.columns(AS_GIVEN, self.images, texts, captions, self.scale)
        followed = [better]
        for turned in canonical(self.images, texts):
            tag = f"turned {turned.ridge:g}"
            more, better = self.columns(tag, turned.images, turned.texts, captions, SCALE)
            columns |= more
            followed.append(better)
        calibrator = calibrator or Calibrator.fit(columns, injected.injected.to(self.images.device))
        contrasts = [calibrator.weights[name] for name in columns if name.startswith("contrast_loss")]
        followed_best = followed[max(range(len(contrasts)), key=contrasts.__getitem__)]
        # A place names whose caption it is: after the exchange that is another's.
        better = torch.where(followed_best >= 0, caption_of[followed_best.clamp(min=0)], -1)
        return _Draw(injected, calibrator, calibrator.contributions(columns).cpu(), better.cpu())

    def columns(
        self, tag: str, x: Tensor, y: Tensor, captions: Groups, scale: float
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The columns of a point, by name, high = suspicious; and `Contrast.better`."""
        against = contrast(x, y, captions, self.pictures, scale=scale, most=COMPARED, seed=self.seed)
        if self.on_point is not None:
            self.on_point()
        columns = {
            "clip_score": -torch.linalg.vecdot(x, y),
            "contrast_loss": against.loss,
            "lemon": lemon(x, y, most=COMPARED, seed=self.seed),
        }
        return {f"{name}, {tag}": values.double() for name, values in columns.items()}, against.better


def _together(draws: list[_Draw], pairs: _Pairs) -> Learned:
    n, names = len(pairs.images), list(draws[0].calibrator.weights)
    total, count = torch.zeros(n, len(names), dtype=torch.float64), torch.zeros(n, 1, dtype=torch.float64)
    better = torch.full((n,), -1, dtype=torch.int64)
    for draw in reversed(draws):
        own = ~draw.exchange.injected
        total[own] += draw.contributions[own]
        count[own] += 1
        better[own] = draw.better[own]
    contributions = total / count.clamp(min=1)
    kinds: dict[str, int] = {}
    for draw in draws:
        for kind, number in draw.exchange.kinds.items():
            kinds[kind] = kinds.get(kind, 0) + number
    suspicion = contributions.sum(1)
    return Learned(
        suspicion=suspicion,
        contributions=contributions,
        columns=names,
        weights={name: sum(draw.calibrator.weights[name] for draw in draws) / len(draws) for name in names},
        injected_auroc=sum(draw.calibrator.auroc for draw in draws) / len(draws),
        injected=kinds,
        injected_scores=torch.cat([draw.suspicion[draw.exchange.injected] for draw in draws]),
        better=better,
        exchanged=_exchanged(better, pairs.captions.to("cpu"), suspicion),
        stability=_agreement(draws),
    )


def _agreement(draws: list[_Draw]) -> float | None:
    """Spearman's correlation of the first two draws over the pairs that were injected in neither."""
    if draws[0].calibrator is draws[1].calibrator:
        return None
    both = ~(draws[0].exchange.injected | draws[1].exchange.injected)
    ranks = torch.stack([fractional_ranks(draw.suspicion[both]) for draw in draws[:2]])
    return float(torch.corrcoef(ranks)[0, 1])


def _exchanged(better: Tensor, captions: Groups, suspicion: Tensor) -> Tensor:
    """For each pair another whose caption fits it better, and which its own caption fits better, the most suspicious
    such; (n,) int64, −1 where there is none."""
    own, wish = captions.of.tolist(), torch.where(better >= 0, captions.of[better.clamp(min=0)], -1).tolist()
    most: dict[tuple[int, int], int] = {}
    for place in torch.argsort(suspicion).tolist():  # the most suspicious of each kind stays
        if wish[place] >= 0:
            most[own[place], wish[place]] = place
    partner = torch.tensor([most.get((wish[place], own[place]), -1) for place in range(len(own))], dtype=torch.int64)
    # Where many pairs have the same two captions, only the two that name each other have exchanged them.
    mutual = partner[partner.clamp(min=0)] == torch.arange(len(own))
    return torch.where((partner >= 0) & mutual, partner, -1)


def _unlearned(pairs: _Pairs, reason: str) -> Learned:
    """All columns of the model as given weigh the same."""
    n = len(pairs.images)
    columns, better = (
        pairs.columns(AS_GIVEN, pairs.images, pairs.texts, pairs.captions, pairs.scale) if n > 1 else ({}, None)
    )
    columns = columns or {f"clip_score, {AS_GIVEN}": -torch.linalg.vecdot(pairs.images, pairs.texts).double()}
    weights = dict.fromkeys(columns, 1 / len(columns))
    contributions = torch.stack([normal_scores(column) * weights[name] for name, column in columns.items()], 1).cpu()
    placed = better.cpu() if better is not None else torch.full((n,), -1, dtype=torch.int64)
    suspicion = contributions.sum(1)
    return Learned(
        suspicion=suspicion,
        contributions=contributions,
        columns=list(columns),
        weights=weights,
        injected_auroc=None,
        injected={},
        injected_scores=suspicion.new_zeros(0),
        better=placed,
        exchanged=_exchanged(placed, pairs.captions.to("cpu"), suspicion),
        stability=None,
        reason=reason,
    )
