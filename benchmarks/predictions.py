"""What influence functions say of a subset's leaving, in every form that the fidelity section compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from benchmarks.worlds import World
from ecif import removal_gradient, score_batch, score_removals
from ecif.parameters import Params, size

Form = Literal["set", "singles", "taylor", "positive"]
FORMS: Final[dict[Form, str]] = {
    "set": "exact, set form",
    "singles": "exact, sum of singles",
    "taylor": "taylor, sum of singles",
    "positive": "positive role alone",
}


def predicted_changes(world: World, params: Params, direction: Tensor, subsets: Tensor) -> dict[Form, Tensor]:
    """w·∇(what leaves with each subset), (m,) float64 in every form, for direction w (P,) and subsets (m, n) bool."""
    total = {form: torch.zeros(len(subsets), dtype=torch.float64) for form in FORMS}
    for batch in world.train:
        removed = subsets[:, batch.image_group]
        along = world.objective, params, batch, direction[None].to(next(iter(params.values())))
        exact, taylor = score_batch(*along), score_batch(*along, "taylor")
        total["set"] += score_removals(*along, removed)[0]
        total["singles"] += removed.double() @ exact.total[0].double()
        total["taylor"] += removed.double() @ taylor.total[0].double()
        total["positive"] += removed.double() @ exact.positive[0].double()
    return total


def removal_gradients(world: World, params: Params, subsets: Sequence[Tensor] | Tensor) -> Tensor:
    """∇(Σ_R Pos + Neg_R) of each subset, (m, P) float64."""
    total = torch.zeros(len(subsets), size(params), dtype=torch.float64)
    for batch in world.train:
        for place, subset in enumerate(subsets):
            total[place] += removal_gradient(world.objective, params, batch, subset[batch.image_group])
    return total
