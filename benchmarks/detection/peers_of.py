"""The peers of one setting: which of them its data and model allow, on what, and what each costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import torch
from torch import Tensor

from benchmarks.detection.held_out import Scorer, confident_learning, cross_fit, cross_fitted
from benchmarks.detection.lemon import lemon, lemon_labels
from benchmarks.detection.peers import aum_classifier, aum_contrastive, clip_logits, clip_score, neg_clip_loss
from benchmarks.detection.setting import Setting
from benchmarks.detection.training import Embedded, embed, embedded_by, new_model, train
from benchmarks.measuring import at_rest_mib, peak_mib, reset_peak
from benchmarks.sections import Json
from ecif.methods import loss_against_all
from ecif.parameters import Params

WITH_CLASSES: Final = ("digits", "photos")
"""Kinds whose captions say one of few classes; of the others every pair may have a caption of its own."""

_TEMPERATURE: Final = 0.01
_FOLDS: Final = 3  # of cross-fitting, which trains as often
_CHECKPOINTS: Final = 5


@dataclass
class Peers:
    """scores: (n,) by name, higher = more suspicious. costs: `seconds` with the embedding of the pairs (and with the
    training, where the model comes from one), `memory_mib` above the process at rest."""

    scores: dict[str, Tensor] = field(default_factory=dict)
    costs: dict[str, Json] = field(default_factory=dict)

    def measure(self, names: tuple[str, ...], before: float, peer: Callable[[], tuple[Tensor, ...]]) -> None:
        """Run one. before: seconds of what it shares with others."""
        rest, begin = at_rest_mib(), perf_counter()
        reset_peak()
        scores = peer()
        cost: Json = {"seconds": before + perf_counter() - begin, "memory_mib": peak_mib() - rest}
        for name, values in zip(names, scores, strict=True):
            self.scores[name], self.costs[name] = values.double(), cost


def peers_of(setting: Setting) -> Peers:
    """All that can be had there."""
    peers, begin = Peers(), perf_counter()
    captions, labels = _numbered(setting.pairs.captions), _numbered(setting.pairs.labels)
    if setting.embedded is None:
        embedded, checkpoints = _trained(setting)
    else:
        assert setting.pretrained is not None
        # Of embeddings that are sent the seconds of making them are counted too: somebody has spent them.
        embedded_by(setting.pretrained, setting.scale.architecture, setting.pairs.images, setting.pairs.captions)
        embedded, checkpoints = setting.embedded, []
    before = perf_counter() - begin
    images, texts, seed = embedded.images, embedded.texts, setting.cell.seed
    peers.measure(("CLIP score",), before, lambda: (clip_score(images, texts),))
    peers.measure(("LEMoN",), before, lambda: (lemon(images, texts),))
    peers.measure(
        ("negCLIPLoss",), before, lambda: (neg_clip_loss(images, texts, temperature=_TEMPERATURE, seed=seed),)
    )
    if setting.cell.kind in WITH_CLASSES:
        first = [labels.tolist().index(label) for label in range(int(labels.max()) + 1)]
        peers.measure(("LEMoN, labels",), before, lambda: (lemon_labels(images, texts[first][labels], labels),))
        peers.measure(("CLIP logits",), before, lambda: (clip_logits(images, texts[first], labels),))
        peers.measure(("AUM, classifier",), before, lambda: (aum_classifier(images, labels, seed=seed),))
        peers.measure(("confident learning",), before, lambda: (confident_learning(images, labels, seed=seed),))
    if checkpoints:
        peers.measure(("AUM, contrastive",), before, lambda: (aum_contrastive(checkpoints, captions),))
        peers.measure(("cross-fitted loss", "cross-fitted cosine"), 0.0, lambda: _trained_without(setting, captions))
    else:
        peers.measure(
            ("cross-fitted loss", "cross-fitted cosine"),
            before,
            lambda: cross_fitted(images, texts, captions, folds=_FOLDS, seed=seed),
        )
    return peers


def _numbered(texts: tuple[str, ...]) -> Tensor:
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return torch.tensor([numbers[text] for text in texts])


def _trained(setting: Setting) -> tuple[Embedded, list[tuple[Tensor, Tensor]]]:
    """The pairs under a model that was trained on them, and under some on the way there."""
    pairs, epochs = setting.pairs, setting.scale.training
    model = new_model(setting.scale.architecture, setting.cell.seed)
    passed: list[Embedded] = []

    def look(epoch: int, params: Params) -> None:
        if epoch % max(1, epochs // _CHECKPOINTS) == 0:
            passed.append(embed(model, params, pairs.images, pairs.captions))

    params = train(model, pairs.images, pairs.captions, epochs=epochs, seed=setting.cell.seed, on_epoch=look)
    end = embed(model, params, pairs.images, pairs.captions)
    return end, [(one.images, one.texts) for one in passed]


def _trained_without(setting: Setting, captions: Tensor) -> tuple[Tensor, Tensor]:
    """Whole trainings, each without the pairs that it then scores."""
    model, pairs = new_model(setting.scale.architecture, setting.cell.seed), setting.pairs

    def without(places: Tensor) -> Scorer:
        some = [pairs.captions[place] for place in places.tolist()]
        epochs, seed = setting.scale.training, setting.cell.seed
        params = train(model, pairs.images[places], some, epochs=epochs, seed=seed)
        end = embed(model, params, pairs.images, pairs.captions)
        loss = loss_against_all(end.images, end.texts, captions, scale=1 / model.temperature)
        return torch.stack([loss.double(), clip_score(end.images, end.texts)], 1).__getitem__

    loss, cosine = cross_fit(without, len(captions), _FOLDS, setting.cell.seed).unbind(1)
    return loss, cosine
