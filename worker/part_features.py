"""The features of one part of a dataset: what is known already, and the rest through the towers, each thing once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from torch import Tensor

from worker.feature_cache import Keys, Side, find
from worker.task import Task

if TYPE_CHECKING:
    from encoders import LoadedModel

AT_ONCE = 64


@dataclass(frozen=True)
class PartFeatures:
    """What the records of a part hold, (n, …) each.

    new_keys: the keys whose features are read from this part from now on, with their rows.
    images_encoded, captions_encoded: how many went through the model.
    """

    images: npt.NDArray[Any]
    texts: npt.NDArray[Any]
    new_keys: dict[UUID, int]
    images_encoded: int
    captions_encoded: int


def features_of(
    task: Task,
    dataset_id: str,
    tenant: str,
    model: LoadedModel,
    raw: Sequence[bytes],
    captions: Sequence[str],
    tokens: Tensor,
    pixels: Callable[[Sequence[int]], Tensor],
) -> PartFeatures:
    """raw: the n images' files. tokens: (n, context). pixels: the prepared images of some rows."""
    names = Keys(tenant, model.encoding_digest)
    keys: dict[Side, list[UUID]] = {
        "image": [names.of("image", content) for content in raw],
        "text": [names.of("text", caption.encode()) for caption in captions],
    }
    first = {side: {key: row for row, key in reversed(list(enumerate(mine)))} for side, mine in keys.items()}
    cached = find(task.database, task.blobs, {key: side for side, mine in first.items() for key in mine})
    known = cached.rows
    missing = {side: [(key, row) for key, row in mine.items() if key not in known] for side, mine in first.items()}

    def through(side: Side, features: Callable[[list[int]], Tensor]) -> None:
        for start in range(0, len(missing[side]), AT_ONCE):
            some = missing[side][start : start + AT_ONCE]
            made = features([row for _, row in some]).float().cpu().numpy()
            known.update((key, row) for (key, _), row in zip(some, made, strict=True))
            if side == "image":
                task.lease.progress(len(raw) - len(missing[side]) + start + len(some))
            task.lease.check()

    through("text", lambda rows: model.text_features(tokens[rows].to(model.device)))
    through("image", lambda rows: model.image_features(pixels(rows).to(model.device)))
    return PartFeatures(
        images=np.stack([known[key] for key in keys["image"]]),
        texts=np.stack([known[key] for key in keys["text"]]),
        # What another dataset's part holds is read from this one now: the older dataset may be deleted first.
        new_keys={
            key: row
            for side in first.values()
            for key, row in side.items()
            if key not in cached.places or cached.places[key].dataset_id != dataset_id
        },
        images_encoded=len(missing["image"]),
        captions_encoded=len(missing["text"]),
    )
