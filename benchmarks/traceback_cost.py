"""A traceback of many queries from stored projected gradients, against one refit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.measuring import interleaved, ratio
from benchmarks.sections import Json
from benchmarks.worlds import synthetic
from ecif import (
    FitSettings,
    Projected,
    Projection,
    fit,
    project_batch,
    query_gradients,
    relative_influence_from_products,
)
from ecif.parameters import size as count_of

_REMOVED = 0.05


def traceback_against_refit(n: int, width: int, queries: int, full: bool) -> Json:
    """n synthetic pairs, heads of width × width fitted to stationarity; queries are validation pairs.

    The refit starts from the fitted heads and leaves out 5 % of the pairs, to the tolerance that a job has.
    """
    world = synthetic(0, n=n, width=width, scale=20.0, batch_size=128 if full else 32).in_single()
    settings = FitSettings(epochs=200)
    fitted = fit(world.objective, world.start, world.batches, settings)
    params = fitted.params
    projection = Projection.of_size(params, 0)
    made = [project_batch(world.objective, params, batch, projection) for batch in world.train]
    projected = Projected.finish(world.objective, projection, (part.curvature for part in made))
    rows = [part.rows.float() for part in made]
    images, candidates = world.validation[0].images, world.validation[0].texts
    query_rows = torch.arange(queries) % len(images)
    outcome: dict[str, Tensor] = {}

    def traceback() -> None:
        gradients = torch.cat(
            [
                query_gradients(
                    world.objective,
                    params,
                    images[some],
                    candidates,
                    some,
                    (some + 1) % len(candidates),
                    "cross_entropy",
                )
                for some in torch.split(query_rows, 64)
            ]
        )
        inside = projection.down(gradients)
        solved = projected.inside(inside)
        norms, parts = inside.norm(dim=1), []
        for stored in load_file(store).values():
            wide = stored.double()
            moved = projected.inside(wide)
            products = torch.einsum("nrk,qk->qnr", wide, solved)
            parts.append(relative_influence_from_products(moved @ moved.mT, -products, norms))
        outcome["relative"] = torch.cat(parts, 1)

    left = world.without(torch.arange(n) < round(_REMOVED * n))

    def refit() -> None:
        outcome["epochs"] = torch.tensor(fit(left.objective, params, left.batches, settings).epochs_done)

    with tempfile.TemporaryDirectory(prefix="ecif-bench-") as folder:
        store = Path(folder) / "rows.safetensors"
        save_file({f"{place:04d}": part.contiguous() for place, part in enumerate(rows)}, store)
        taken = interleaved({"traceback": traceback, "refit": refit}, 3 if full else 1, warm_up=False)
    return {
        "pairs": n,
        "parameters": count_of(params),
        "coordinates": projection.size,
        "queries": queries,
        "refit_epochs": int(outcome["epochs"]),
        "stationary": fitted.stationary,
        "seconds": taken,
        "ratio": ratio(taken, "traceback", "refit"),
        "finite": bool(outcome["relative"].isfinite().all()),
    }
