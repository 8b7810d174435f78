"""Suspicion learned without labels: from mismatches made of the user's own pairs (`docs/design.md`, section 7).

In each of a few draws some pairs exchange captions (`injection`). The modalities of all pairs as they then are get
turned towards each other, ever more freely (`canonical`), columns are computed of all of them alike, and a calibrator
learns how the columns of the injected pairs differ (`calibrator`). The others are then scored by it; no pair is
injected twice, so that all are scored in a draw at least, and those that were in several get the mean. Of many pairs
this is learned on a sample, and all of them are scored by what was learned. Everything is symmetric in the pairs: clean
ones that calibrate stay exchangeable with those that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ecif.batches import generator
from ecif.detection.calibrator import Calibrator, normal_scores, normal_scores_among
from ecif.detection.canonical import RIDGES, SCALE, Covariances, Turned
from ecif.detection.contrast import Others
from ecif.detection.groups import Groups
from ecif.detection.injection import Exchange, exchange
from ecif.methods import Neighbours
from ecif.similarity import normalise
from ecif.stability import Stability, stability

DRAWS: Final = 2
MORE_DRAWS: Final = 6
FEW: Final = 2048
"""Of so many pairs or fewer there are more draws: the weights are as sure as the injected pairs are many."""

SHARE: Final = 0.1
"""Of the pairs that are injected in a draw."""

SAMPLE: Final = 8192
"""Pairs that are learned from; all are, where they are no more."""

COMPARED: Final = 2048
COMPARED_OF_MANY: Final = 1024
"""Others that a pair is held against, of each modality: a sample above. Fewer where there are more pairs than `SAMPLE`,
as they are most of the cost: of 1,200 pairs 512 others instead of all cost 0.001 of AUROC."""

LEAST: Final = 50
"""Pairs below which nothing is learned."""

GAIN: Final = 0.005
"""AUROC on injected pairs that turning the modalities has to bring, or the model is judged by as it was given: what is
learned of the pairs is learned of those that are wrong in one and the same way, too."""

AS_GIVEN: Final = "as given"


def looks(n: int) -> int:
    """How often n pairs are looked at, at most."""
    return (_count_of_draws(n) + (n > SAMPLE)) * (1 + len(RIDGES))


def _count_of_draws(n: int) -> int:
    return MORE_DRAWS if n <= FEW else DRAWS


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
        stability: how far the draws' suspicions agree; None where only one of them learned.
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
    stability: Stability | None
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
        on_point: called after every look at the pairs, of which there are `looks` at most.

    Raises:
        ValueError: shapes that do not agree.
    """
    n = len(images)
    pairs = _Pairs(
        normalise(images),
        normalise(texts),
        Groups.by(caption_group),
        Groups.by(image_group),
        scale,
        seed,
        COMPARED if n <= SAMPLE else COMPARED_OF_MANY,
        on_point,
    )
    reason = pairs.reason_not_to_learn()
    if reason is not None:
        return _unlearned(pairs, reason)
    sample = torch.arange(n)
    if n > SAMPLE:
        sample = torch.randperm(n, generator=generator(seed, -70))[:SAMPLE].sort().values
    covariances = Covariances.of(pairs.images, pairs.texts)
    draws = _draws(pairs, covariances, captions, sample)
    if not draws:
        return _unlearned(pairs, "no two pairs with different captions could exchange them")
    return _together(draws, pairs) if len(sample) == n else _of_all(draws, pairs, covariances)


def _draws(pairs: _Pairs, covariances: Covariances, captions: Sequence[str] | None, sample: Tensor) -> list[_Draw]:
    """What was learned in each draw from the pairs at `sample` (m,); none where no two could exchange captions."""
    device, m = pairs.texts.device, len(sample)
    texts, groups = pairs.texts[sample.to(device)].cpu(), Groups.by(pairs.captions.of.cpu()[sample])
    said = [captions[place] for place in sample.tolist()] if captions is not None else None
    taken, draws = torch.zeros(m, dtype=torch.bool), list[_Draw]()
    for number in range(_count_of_draws(m)):
        injected = exchange(texts, said, groups, SHARE, pairs.seed, number, taken)
        taken |= injected.injected
        if bool(injected.injected.any()):
            draws.append(pairs.draw(sample, injected, covariances))
            continue
        if len(draws) == 1:  # nobody is left to exchange with; those that did are to be scored with their own captions
            draws.append(pairs.draw(sample, injected, covariances, draws[0].calibrator))
        break
    return draws


@dataclass(frozen=True)
class _Draw:
    """What a draw learned from m pairs: what each column says of them, (m, columns), its share in their suspicion, and
    a better caption's place, (m,)."""

    exchange: Exchange
    calibrator: Calibrator
    columns: dict[str, Tensor]
    contributions: Tensor
    better: Tensor

    @property
    def suspicion(self) -> Tensor:
        return self.contributions.sum(1)


@dataclass(frozen=True)
class _Look:
    """The columns of some pairs at one point, by name, high = suspicious; and `Contrast.better`."""

    columns: dict[str, Tensor]
    better: Tensor


@dataclass(frozen=True)
class _Pairs:
    """Unit rows images, texts (n, E), which are equal, and how many others each is compared with."""

    images: Tensor
    texts: Tensor
    captions: Groups
    pictures: Groups
    scale: float
    seed: int
    compared: int
    on_point: Callable[[], None] | None

    def reason_not_to_learn(self) -> str | None:
        if len(self.images) < LEAST:
            return f"{len(self.images)} pairs are fewer than the {LEAST} from which mismatches are learned"
        if len(self.captions) < 2:
            return "all captions are equal: there is no mismatch to learn from"
        return None

    def draw(
        self, sample: Tensor, injected: Exchange, covariances: Covariances, calibrator: Calibrator | None = None
    ) -> _Draw:
        """Score the pairs at `sample` (m,) beside those of them that exchanged captions, by a calibrator that learns
        from these unless given."""
        sample = sample.to(self.texts.device)
        caption_of = sample[injected.caption_of.to(sample.device)]
        moved = caption_of != sample
        before, after = self.texts[sample[moved]], self.texts[caption_of[moved]]
        here = _Pairs(
            self.images[sample],
            self.texts[caption_of],
            Groups.by(self.captions.of[caption_of]),
            Groups.by(self.pictures.of[sample]),
            self.scale,
            self.seed,
            self.compared,
            self.on_point,
        )
        seen = list(here.looks(covariances.with_exchanged(here.images[moved], before, after)))
        columns = {name: values for look in seen for name, values in look.columns.items()}
        calibrator = calibrator or _calibrated(columns, injected.injected.to(sample.device))
        better = _followed(seen, calibrator.weights)
        # A place names whose caption it is: after the exchange that is another's.
        better = torch.where(better >= 0, caption_of[better.clamp(min=0)], -1)
        return _Draw(injected, calibrator, columns, calibrator.contributions(columns).cpu(), better.cpu())

    def looks(self, covariances: Covariances) -> Iterator[_Look]:
        """As the model was given, then turned ever more freely."""
        yield self.look(None)
        for turned in covariances.turned():
            yield self.look(turned)

    def look(self, turned: Turned | None) -> _Look:
        """At all pairs, a block of rows at a time. LEMoN is a column where they were turned most freely: elsewhere it
        follows the others, and is behind them where a model knows much."""
        n, device = len(self.images), self.images.device
        freest = turned is not None and turned.ridge == min(RIDGES)
        tag, scale = (AS_GIVEN, self.scale) if turned is None else (f"turned {turned.ridge:g}", SCALE)
        x: Callable[[Tensor], Tensor] = (lambda rows: rows) if turned is None else turned.images
        y: Callable[[Tensor], Tensor] = (lambda rows: rows) if turned is None else turned.texts
        others = Others.drawn(self.captions, self.pictures, self.compared, self.seed)
        captions, pictures = y(self.texts[others.with_caption]), x(self.images[others.with_picture])
        parts: dict[str, list[Tensor]] = {name: [] for name in ("clip_score", "contrast_loss", "lemon")}
        better = []
        if freest:
            among = Neighbours.drawn(n, self.compared, self.seed).to(device)
            near = Neighbours(x(self.images[among]), y(self.texts[among]), among)
        for places in torch.split(torch.arange(n, device=device), _ROWS):
            images, texts = x(self.images[places]), y(self.texts[places])
            against = others.contrast(places, images, texts, captions, pictures, scale=scale)
            parts["clip_score"].append(-torch.linalg.vecdot(images, texts))
            parts["contrast_loss"].append(against.loss)
            if freest:
                parts["lemon"].append(near.scores(places, images, texts))
            better.append(against.better)
        if self.on_point is not None:
            self.on_point()
        return _Look(
            {f"{name}, {tag}": torch.cat(values).double() for name, values in parts.items() if values},
            torch.cat(better),
        )


_ROWS: Final = 1 << 14  # of both modalities that are turned at a time


def _calibrated(columns: dict[str, Tensor], injected: Tensor) -> Calibrator:
    """Of all columns, where those that were turned gain on those as given."""
    calibrator = Calibrator.fit(columns, injected)
    given = Calibrator.fit({name: column for name, column in columns.items() if name.endswith(AS_GIVEN)}, injected)
    if calibrator.auroc - given.auroc >= GAIN:
        return calibrator
    return Calibrator(dict.fromkeys(columns, 0.0) | given.weights, given.auroc)


def _followed(seen: Sequence[_Look], weights: dict[str, float]) -> Tensor:
    """A better caption as that look sees it which tells most."""

    def tells(look: _Look) -> float:
        return sum(weights[name] for name in look.columns if name.startswith("contrast_loss"))

    return max(seen, key=tells).better


def _mean_weights(draws: list[_Draw]) -> dict[str, float]:
    return {name: sum(draw.calibrator.weights[name] for draw in draws) / len(draws) for name in draws[0].columns}


def _of_all(draws: list[_Draw], pairs: _Pairs, covariances: Covariances) -> Learned:
    """All pairs by what draws learned from a sample: their columns as quantiles of those of the first draw's sample,
    so that they compare with its injected pairs."""
    weights, first = _mean_weights(draws), draws[0]
    seen = list(pairs.looks(covariances))
    columns = {name: values for look in seen for name, values in look.columns.items()}
    parts = [normal_scores_among(values, first.columns[name]) * weights[name] for name, values in columns.items()]
    mean = Calibrator(weights, first.calibrator.auroc)
    ofs = [mean.contributions(draw.columns).sum(1).cpu()[draw.exchange.injected] for draw in draws]
    return _learned(draws, pairs, torch.stack(parts, 1).cpu(), _followed(seen, weights).cpu(), torch.cat(ofs))


def _together(draws: list[_Draw], pairs: _Pairs) -> Learned:
    """Every pair by the draws in which it kept its caption."""
    n = len(pairs.images)
    total = torch.zeros(n, len(draws[0].columns), dtype=torch.float64)
    count = torch.zeros(n, 1, dtype=torch.float64)
    better = torch.full((n,), -1, dtype=torch.int64)
    for draw in reversed(draws):
        own = ~draw.exchange.injected
        total[own] += draw.contributions[own]
        count[own] += 1
        better[own] = draw.better[own]
    injected = torch.cat([draw.suspicion[draw.exchange.injected] for draw in draws])
    return _learned(draws, pairs, total / count.clamp(min=1), better, injected)


def _learned(
    draws: list[_Draw], pairs: _Pairs, contributions: Tensor, better: Tensor, injected_scores: Tensor
) -> Learned:
    kinds: dict[str, int] = {}
    for draw in draws:
        for kind, number in draw.exchange.kinds.items():
            kinds[kind] = kinds.get(kind, 0) + number
    suspicion = contributions.sum(1)
    return Learned(
        suspicion=suspicion,
        contributions=contributions,
        columns=list(draws[0].columns),
        weights=_mean_weights(draws),
        injected_auroc=sum(draw.calibrator.auroc for draw in draws) / len(draws),
        injected=kinds,
        injected_scores=injected_scores,
        better=better,
        exchanged=_exchanged(better, pairs.captions.to("cpu"), suspicion),
        stability=_agreement(draws),
    )


def _agreement(draws: list[_Draw]) -> Stability | None:
    """Of the draws that learned for themselves, each over the pairs that were not injected in it."""
    learned = [draw for place, draw in enumerate(draws) if not place or draw.calibrator is not draws[0].calibrator]
    own = torch.stack([~draw.exchange.injected for draw in learned])
    return stability(torch.stack([draw.suspicion for draw in learned]), own)


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
    seen = pairs.look(None) if n > 1 else None
    columns = seen.columns if seen else {f"clip_score, {AS_GIVEN}": -torch.linalg.vecdot(pairs.images, pairs.texts)}
    weights = dict.fromkeys(columns, 1 / len(columns))
    contributions = torch.stack([normal_scores(column) * weights[name] for name, column in columns.items()], 1).cpu()
    placed = seen.better.cpu() if seen else torch.full((n,), -1, dtype=torch.int64)
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
