"""Encode: images and captions of one part become the records that batches are read from.

Records are named by what they are made of, so that the next job on the same data and model finds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sqlalchemy.orm import Session

from encoders import decode_image
from store import datasets, pairs
from store.database import Database
from store.shards import Planned
from store.specification import JobSpec
from store.tables import Dataset, Job, Pair
from worker.content_hash import content_hash
from worker.devices import device_of
from worker.job_view import JobView
from worker.models import job_model
from worker.records import pack
from worker.task import Done, Task

if TYPE_CHECKING:
    from encoders import LoadedModel

_AT_ONCE = 64


def shards(session: Session, job: Job, spec: JobSpec) -> list[Planned]:
    """One shard a part of images; none for embeddings, whose records ingest has written."""
    if spec.model is None:
        return []
    planned = []
    for dataset_id in job.named_datasets():
        number = session.get_one(Dataset, dataset_id).number
        for part in datasets.parts(session, dataset_id):
            payload = {
                "dataset": dataset_id,
                "number": number,
                "part": part.part,
                "blob": part.blob,
                "first_row": part.first_row,
                "count": part.count,
            }
            planned.append(Planned(payload, part.count))
    return planned


def run(task: Task) -> Done:
    """Encode one part, unless that was done before."""
    payload = task.claim.payload
    view = JobView.of(task)
    model = job_model(task, view.spec, device_of(task.settings))
    assert model is not None  # noqa: S101  planned for images only
    scope = view.spec.objective.scope
    made_of = f"{model.digest}-{'features' if scope == 'heads' else 'inputs'}"
    name = f"datasets/{payload['dataset']}/encoded/{made_of}/{payload['part']:06d}"
    output = {
        "dataset": payload["dataset"],
        "part": payload["part"],
        "blob": name,
        "first_row": payload["first_row"],
        "count": payload["count"],
        "model_digest": model.digest,
    }
    found = _stored(task.database, payload)
    captions = [pair.caption or "" for pair in found]
    tokens = model.tokenize(captions)
    truncated = int(tokens.truncated.sum())
    cached = task.blobs.exists(name)
    if not cached:
        task.blobs.put(name, _encode(task, model, scope, found, tokens.ids))
    return Done({**output, "truncated": truncated, "cached": cached}, payload["count"])


def _stored(database: Database, payload: dict[str, int]) -> list[Pair]:
    with database.transaction() as session:
        return list(
            pairs.images_of_part(session, payload["number"], payload["part"], payload["first_row"], payload["count"])
        )


def _encode(task: Task, model: LoadedModel, scope: str, found: list[Pair], tokens: torch.Tensor) -> bytes:
    content = memoryview(task.blobs.get(task.claim.payload["blob"]))
    images, texts, hashes = [], [], []
    for start in range(0, len(found), _AT_ONCE):
        task.lease.progress(start)
        some = found[start : start + _AT_ONCE]
        raw = [bytes(content[pair.image_offset or 0 :][: pair.image_length or 0]) for pair in some]
        hashes += [content_hash(data) for data in raw]
        limit = task.settings.ecif_max_image_pixels  # ingest has turned away what does not decode
        pixels = model.prepare_images([decode_image(data, max_pixels=limit) for data in raw])
        ids = tokens[start : start + _AT_ONCE]
        if scope == "heads":
            image, text = model.tower_features(pixels.to(model.device), ids.to(model.device))
            images.append(image.float().cpu().numpy())
            texts.append(text.float().cpu().numpy())
        else:
            images.append(pixels.numpy())
            texts.append(ids.to(torch.int32).numpy())
    captions = [content_hash((pair.caption or "").encode()) for pair in found]
    return pack(
        np.array(captions, dtype=np.int64),
        np.array(hashes, dtype=np.int64),
        np.concatenate(images),
        np.concatenate(texts),
    )
