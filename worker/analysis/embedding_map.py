"""The map of a job: the embeddings of its pairs on a plane, of as many pairs as a page can show."""

import json

import torch
from torch import Tensor

from ecif.plane import principal_plane
from store import maps
from store.blobs import Blobs
from worker.analysis.job_view import JobView
from worker.analysis.roster import Roster
from worker.analysis.tensors import get_tensors
from worker.outputs import ScoreOutput

_MOST = 20_000
_SIDES = ("images", "texts")


def put_map(blobs: Blobs, view: JobView, roster: Roster, order: Tensor, suspicion: Tensor, flagged: Tensor) -> None:
    """Keep the map of scored pairs, `_MOST` at most, drawn from the seed. order: (n,) places, the first rank first.
    suspicion, flagged: (n,) by place."""
    generator = torch.Generator().manual_seed(view.spec.objective.seed)
    places = torch.randperm(roster.scored, generator=generator)[:_MOST].sort().values
    rows = _embedded(blobs, view, places)
    if rows is None:
        return
    plane = principal_plane(rows)
    rank = torch.empty(roster.scored, dtype=torch.int64)
    rank[order] = torch.arange(1, roster.scored + 1)
    x, y = (_rounded(column) for column in plane.points.T)
    content = {
        "projection": "principal components of the embeddings of image and caption, side by side",
        "explained": round(plane.explained, 4),
        "pairs": roster.scored,
        "rank": rank[places].tolist(),
        "x": x,
        "y": y,
        "suspicion": _rounded(suspicion[places]),
        "flagged": flagged[places].tolist(),
    }
    blobs.put(maps.name_of(view.id), json.dumps(content, separators=(",", ":"), allow_nan=False).encode())


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.double().nan_to_num(0.0, 0.0, 0.0).tolist()]


def _embedded(blobs: Blobs, view: JobView, places: Tensor) -> Tensor | None:
    """(n, 2E) of the pairs at these places, ascending; None where no embeddings were left. Shard by shard, so that no
    more than one is held."""
    rows: Tensor | None = None
    for output in view.outputs(ScoreOutput):
        if output.embeddings is None:
            continue
        part = get_tensors(blobs, output.embeddings)
        at = torch.searchsorted(places, part["places"]).clamp(max=len(places) - 1)
        mine = places[at] == part["places"]
        both = torch.cat([part[side][mine].float() for side in _SIDES], dim=1)
        if rows is None:
            rows = both.new_zeros(len(places), both.shape[1])
        rows[at[mine]] = both
    return rows
