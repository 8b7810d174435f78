"""Encode: images and captions of one part become the records that batches are read from.

Records are named by what they are made of, so that the next job on the same data and model finds them. Another
dataset finds the features of the images and captions that it shares with this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from sqlalchemy.orm import Session
from torch import Tensor

from readers.sandbox.image_decoding import decode_image
from store import datasets, features, pairs
from store.database import Database
from store.shards import Planned
from store.specification import JobSpec
from store.tables import Dataset, Job, Pair
from worker.content_hash import content_hash
from worker.devices import device_of
from worker.job_view import JobView
from worker.models import job_model
from worker.part_features import AT_ONCE, PartFeatures, features_of
from worker.records import pack
from worker.task import Done, Task


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
    """Encode one part, or what of it was not encoded before."""
    payload = task.claim.payload
    view = JobView.of(task)
    model = job_model(task, view.spec, device_of(task.settings))
    assert model is not None  # noqa: S101  planned for images only
    heads = view.spec.objective.scope == "heads"
    dataset, count = payload["dataset"], payload["count"]
    name = f"datasets/{dataset}/encoded/{model.digest}-{'features' if heads else 'inputs'}/{payload['part']:06d}"
    found = _stored(task.database, payload)
    captions = [pair.caption or "" for pair in found]
    tokens = model.tokenize(captions)
    output = {
        "dataset": dataset,
        "part": payload["part"],
        "blob": name,
        "first_row": payload["first_row"],
        "count": count,
        "model_digest": model.digest,
        "truncated": int(tokens.truncated.sum()),
    }
    with task.database.transaction() as session:
        whole = features.is_whole(session, name)
    if whole and task.blobs.exists(name):
        return Done({**output, "encoded": {"images": 0, "captions": 0}}, count)
    content = memoryview(task.blobs.get(payload["blob"]))
    raw = [bytes(content[pair.image_offset or 0 :][: pair.image_length or 0]) for pair in found]

    def pixels(rows: Sequence[int]) -> Tensor:
        # In this process: ingest had another one parse each of them to its last byte, and that one survived. What is
        # done here beyond it, to pixels, does not depend on how a hostile file is written. One at a time: sixty-four
        # of the largest would be twelve gigabytes.
        limit = task.settings.ecif_max_image_pixels
        return model.prepare_images(decode_image(raw[row], max_pixels=limit) for row in rows)

    if heads:
        part = features_of(task, view.tenant, model, raw, captions, tokens.ids, pixels)
    else:
        part = _inputs(task, tokens.ids, pixels)
    records = pack(
        np.array([content_hash(caption.encode()) for caption in captions], dtype=np.int64),
        np.array([content_hash(data) for data in raw], dtype=np.int64),
        part.images,
        part.texts,
    )
    with task.database.transaction() as session:
        number = features.announce(session, dataset, name, len(records))
    task.blobs.put(name, records)

    def write(session: Session) -> None:
        features.record(session, number, part.found_here)

    return Done({**output, "encoded": part.encoded}, count, write)


def _stored(database: Database, payload: dict[str, int]) -> list[Pair]:
    with database.transaction() as session:
        return list(
            pairs.images_of_part(session, payload["number"], payload["part"], payload["first_row"], payload["count"])
        )


def _inputs(task: Task, tokens: Tensor, pixels: Callable[[Sequence[int]], Tensor]) -> PartFeatures:
    """What whole towers take, of every pair: to look for it elsewhere would cost as much as to make it."""
    count, images = len(tokens), []
    for start in range(0, count, AT_ONCE):
        task.lease.progress(start)
        images.append(pixels(range(start, min(start + AT_ONCE, count))).numpy())
    encoded = {"images": count, "captions": count}
    return PartFeatures(np.concatenate(images), tokens.to(torch.int32).numpy(), {}, encoded)
