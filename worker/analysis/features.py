"""The features of every image and caption that a tenant's jobs have encoded, found by their content.

The records of a part are written once, for its dataset; here other datasets find what they share with it. Keys hold
the tenant: neither features nor the time they take tell anybody about another's data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ecif.at_once import AtOnce
from store import features
from store.blobs import Blobs
from store.database import Database
from store.features import Place
from worker.analysis.records import read_records
from worker.attempts.task import Task

if TYPE_CHECKING:
    from encoders import LoadedModel


Side = Literal["image", "text"]


@dataclass(frozen=True)
class Keys:
    """Names of features: 128 bits of whose, which encoding's, which tower's, and of what bytes.

    encoding_digest: of the model and of the code that encodes with it (`encoders.LoadedModel.encoding_digest`).
    """

    tenant: str
    encoding_digest: str

    def of(self, side: Side, content: bytes | memoryview) -> UUID:
        owner = hashlib.sha256(f"{self.tenant}\n{self.encoding_digest}\n{side}".encode()).digest()
        return UUID(bytes=hashlib.blake2b(content, digest_size=16, key=owner).digest())


@dataclass
class Cached:
    """Features by key, and where each stands."""

    rows: dict[UUID, npt.NDArray[Any]] = field(default_factory=dict)
    places: dict[UUID, Place] = field(default_factory=dict)


def find(database: Database, blobs: Blobs, sides: Mapping[UUID, Side]) -> Cached:
    """What is known of these keys. What was let go a moment ago is not known."""
    with database.transaction() as session:
        places = features.find(session, sides.keys())
    by_blob: dict[str, list[UUID]] = {}
    for key, place in places.items():
        by_blob.setdefault(place.blob, []).append(key)
    cached = Cached()
    for blob, keys in by_blob.items():
        rows, at = np.unique([places[key].row for key in keys], return_inverse=True)
        try:
            records = read_records(blobs, blob, rows.tolist())
        except FileNotFoundError:
            continue
        for key, index in zip(keys, at.tolist(), strict=True):
            cached.rows[key], cached.places[key] = records[sides[key]][index], places[key]
    return cached


AT_ONCE = 64
"""Inputs of a tower that go through it together."""


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
        mine = missing[side]
        done = len(raw) - len(mine)

        def made(some: slice) -> dict[UUID, npt.NDArray[Any]]:
            rows = features([row for _, row in mine[some]]).float().cpu().numpy()
            return dict(zip((key for key, _ in mine[some]), rows, strict=True))

        for piece in AtOnce(f"{side}s", AT_ONCE).pieces(len(mine), made):
            known.update(piece)
            done += len(piece)
            if side == "image":
                task.lease.progress(done)
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
