"""The features of every image and caption that a tenant's jobs have encoded, found by their content.

The records of a part are written once, for its dataset; here other datasets find what they share with it. Keys hold
the tenant: neither features nor the time they take tell anybody about another's data.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt

from store import features
from store.blobs import Blobs
from store.database import Database
from store.features import Place
from worker.records import read_records

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
