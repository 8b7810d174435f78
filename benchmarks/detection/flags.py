"""Whether flags hold in the run at hand: many draws of who is clean, and what is flagged without any clean pair.

A setting is learned once: clean and scored pairs stand among each other in learning, as in a job, and which of the
right ones are clean has no part in it. So each draw takes another part of the right pairs for the clean set.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from time import perf_counter
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.detection.cells import KINDS, Cell, cells_of
from benchmarks.detection.data import Noisy, noisy
from benchmarks.detection.judging import CONFIDENCE, outcome_of_flags
from benchmarks.detection.training import Embedded, embed, new_model, train
from benchmarks.sections import Json
from ecif.detection.conformal import discoveries
from ecif.detection.flags import flag_by_estimate
from ecif.detection.learned import Learned, learn_suspicion
from encoders.architectures import TINY_NAME
from store.specification import DEFAULT_EMBEDDING_TEMPERATURE

RATES: Final = (0.05, 0.1)

SEEDS: Final = (0, 1)
"""Of data and model; the draws are shared out among them."""

DRAWN: Final = {
    "digits": ("shuffled", "class_flip"),
    "scenes": ("shuffled", "attribute"),
    "emoji": ("shuffled", "near"),
    "photos": ("shuffled", "human_one"),
}
"""Of each kind the noises with many draws of clean sets: one that is easy to see and one that is not, a fifth wrong."""

_MAIN: Final = 0.2
_SCALE: Final = 1 / DEFAULT_EMBEDDING_TEMPERATURE  # as a job on embeddings has it


@dataclass(frozen=True)
class FlagScale:
    """clean: the sizes of clean sets. scored: pairs beside them. draws: of each size. pool, epochs: of pretraining."""

    architecture: str | dict[str, Any]
    clean: tuple[int, ...]
    scored: int
    draws: int
    pool: int
    epochs: int


FULL: Final = FlagScale(TINY_NAME, (100, 200, 500, 1000), scored=1000, draws=100, pool=4000, epochs=15)


def settings_of(kind: str, seed: int) -> list[Cell]:
    """What is measured of a kind without a clean set; those of `DRAWN` with many too."""
    return [cell for cell in cells_of(kind) if cell.model == "embeddings" and cell.seed == seed]


def measure_flags(
    left: Sequence[Cell], scale: FlagScale = FULL, *, until: float = math.inf, processes: int | None = None
) -> Iterator[Json]:
    """Each setting's figures, as they come. After `until`, a time of `perf_counter`, no other model is begun."""
    units = [[cell for cell in left if (cell.kind, cell.seed) == (kind, seed)] for kind in KINDS for seed in SEEDS]
    count = processes or len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process begins
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        begun = [pool.submit(of_one_model, unit, scale) for unit in units if unit]
        for unit in as_completed(begun):
            if perf_counter() > until:
                for each in begun:
                    each.cancel()
            if not unit.cancelled():
                yield from unit.result()


def of_one_model(cells: Sequence[Cell], scale: FlagScale) -> list[Json]:
    """The settings of one kind and seed, which share a model that was pretrained on other right pairs."""
    torch.set_num_threads(1)
    pool = _noisy(cells[0], scale).pool
    model = new_model(scale.architecture, cells[0].seed)
    params = train(model, pool.images, pool.captions, epochs=scale.epochs, seed=cells[0].seed)
    measured = []
    for cell in cells:
        begin, pairs = perf_counter(), _noisy(cell, scale)
        embedded = embed(model, params, pairs.images, pairs.captions)
        judged = torch.nonzero(~pairs.reserved)[:, 0]
        figures: Json = {**cell.as_json(), "without": _without(embedded, pairs, judged, cell.seed)}
        if cell.noise in DRAWN[cell.kind] and cell.rate in (0.0, _MAIN):
            every = torch.arange(len(pairs.wrong))
            learned = _learn(embedded, pairs, every, cell.seed)
            figures["clean"] = with_clean_sets(learned.suspicion, pairs.wrong, scale, len(judged), cell.seed)
        measured.append({**figures, "seconds": perf_counter() - begin})
    return measured


def with_clean_sets(suspicion: Tensor, wrong: Tensor, scale: FlagScale, scored: int, seed: int) -> list[Json]:
    """For each size of clean sets what many draws of one flag.

    Args:
        suspicion, wrong: (N,) of all pairs, clean ones too. scored: how many pairs there are to flag, at most; all that
            are wrong are among them.

    Returns:
        `clean`, `scored`, `wrong` (counts), `draws`, and under `rates` for each: `beyond`, in how many draws the share
        of right pairs among the flagged was above the rate; `silent`, in how many nothing was flagged; `found`, the
        mean share of the wrong pairs that was.
    """
    random = torch.Generator().manual_seed(seed)
    right, bad = (torch.nonzero(which)[:, 0] for which in (~wrong, wrong))
    rows = []
    for m in scale.clean:
        beside = min(scored - len(bad), len(right) - m)
        if beside <= 0:
            continue
        rates: dict[str, Json] = {str(rate): {"beyond": 0, "silent": 0, "found": 0.0} for rate in RATES}
        for _ in range(scale.draws):
            order = right[torch.randperm(len(right), generator=random)]
            places = torch.cat([bad, order[m : m + beside]])
            q = discoveries(suspicion[places], suspicion[order[:m]], CONFIDENCE).q_value
            for rate in RATES:
                outcome, of_rate = outcome_of_flags(q <= rate, wrong[places]), rates[str(rate)]
                of_rate["beyond"] += (outcome["false_discovery"] or 0.0) > rate
                of_rate["silent"] += outcome["flagged"] == 0
                of_rate["found"] += outcome["power"] / scale.draws
        counts = {"clean": m, "scored": len(bad) + beside, "wrong": len(bad), "draws": scale.draws}
        rows.append({**counts, "rates": rates})
    return rows


def _without(embedded: Embedded, pairs: Noisy, judged: Tensor, seed: int) -> Json:
    """What is flagged of the judged pairs where none is known to be clean, by rate."""
    learned = _learn(embedded, pairs, judged, seed)
    return {
        "pairs": len(judged),
        "wrong": int(pairs.wrong[judged].sum()),
        "rates": {
            str(rate): outcome_of_flags(flag_by_estimate(learned.suspicion, rate).flagged, pairs.wrong[judged])
            for rate in RATES
        },
    }


def _learn(embedded: Embedded, pairs: Noisy, places: Tensor, seed: int) -> Learned:
    captions = [pairs.captions[place] for place in places.tolist()]
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    caption_group = torch.tensor([numbers[caption] for caption in captions])
    image_group = torch.unique(pairs.images[places].flatten(1), dim=0, return_inverse=True)[1]
    images, texts = embedded.images[places], embedded.texts[places]
    return learn_suspicion(images, texts, captions, caption_group, image_group, scale=_SCALE, seed=seed)


def _noisy(cell: Cell, scale: FlagScale) -> Noisy:
    clean = max(scale.clean)
    return noisy(
        cell.kind,
        cell.noise,
        cell.rate,
        cell.seed,
        n=scale.scored + clean,
        n_clean=0,
        n_reserved=clean,
        n_pool=scale.pool,
    )
