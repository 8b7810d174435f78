"""Encode: images and captions of one part become the records that batches are read from.

Records are named by what they are made of, so that the next job on the same data and model finds them. Another
dataset finds the features of the images and captions that it shares with this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from sqlalchemy.orm import Session
from torch import Tensor

from encoders import encoder_versions
from readers.sandbox.image_decoding import decode_image
from store import datasets, features, pairs
from store.shards import Planned
from worker.analysis.checkpoints import checkpoint_model, named_checkpoints
from worker.analysis.features import AT_ONCE, PartFeatures, features_of
from worker.analysis.job_view import JobView
from worker.analysis.models import device_of, job_model
from worker.analysis.records import content_hash, pack
from worker.attempts.task import Done, Task
from worker.outputs import Encoded, EncodeOutput, PartToEncode
from worker.pipeline import Planning


def cut(planning: Planning) -> list[Planned]:
    """One shard a part of images, for the model and for each checkpoint that has features of its own; none for
    embeddings, whose records ingest has written."""
    if planning.spec.model is None:
        return []
    session, parts = planning.session, list[PartToEncode]()
    for dataset_id in planning.job.named_datasets():
        number = datasets.number(session, dataset_id)
        parts += [
            PartToEncode(dataset_id, number, part.part, part.blob, part.first_row, part.count)
            for part in datasets.parts(session, dataset_id)
        ]
    # One model after the other: a process keeps the two used last. What whole towers take is the same for all.
    checkpoints = named_checkpoints(planning.spec) if planning.spec.objective.scope == "heads" else ()
    encoders = (None, *checkpoints)
    return [
        Planned(replace(part, checkpoint=checkpoint).as_json(), part.count) for checkpoint in encoders for part in parts
    ]


def run(task: Task) -> Done[EncodeOutput]:
    """Encode one part, or what of it was not encoded before."""
    mine = PartToEncode.from_json(task.claim.payload)
    view = JobView.of(task)
    device = device_of(task.settings)
    if mine.checkpoint is not None:
        model = checkpoint_model(task, mine.checkpoint, device)
    else:
        own = job_model(task, view.spec, device)
        assert own is not None  # noqa: S101  planned for images only
        model = own
    heads = view.spec.objective.scope == "heads"
    made_by = f"{model.encoding_digest}-{'features' if heads else 'inputs'}"
    name = f"datasets/{mine.dataset}/encoded/{made_by}/{mine.part:06d}"
    with task.database.transaction() as session:
        stored = list(pairs.images_of_part(session, mine.number, mine.part, mine.first_row, mine.count))
    captions = [pair.caption or "" for pair in stored]
    tokens = model.tokenize(captions)

    def output(images: int, captions: int) -> EncodeOutput:
        return EncodeOutput(
            dataset=mine.dataset,
            part=mine.part,
            blob=name,
            first_row=mine.first_row,
            count=mine.count,
            model_digest=model.digest,
            truncated=int(tokens.truncated.sum()),
            encoded=Encoded(images, captions),
            encoder=encoder_versions(),
            logit_bias=model.logit_bias,
            checkpoint=mine.checkpoint,
        )

    with task.database.transaction() as session:
        whole = features.is_whole(session, name)
    if whole and task.blobs.exists(name):
        return Done(output(0, 0), mine.count)
    content = memoryview(task.blobs.get(mine.blob))
    raw = [bytes(content[pair.image_offset or 0 :][: pair.image_length or 0]) for pair in stored]

    def pixels(rows: Sequence[int]) -> Tensor:
        # In this process: ingest had another one parse each of them to its last byte, and that one survived. What is
        # done here beyond it, to pixels, does not depend on how a hostile file is written. One at a time: sixty-four
        # of the largest would be twelve gigabytes.
        limit = task.settings.ecif_max_image_pixels
        return model.prepare_images(decode_image(raw[row], max_pixels=limit) for row in rows)

    if heads:
        part = features_of(task, mine.dataset, view.tenant, model, raw, captions, tokens.ids, pixels)
    else:
        part = _inputs(task, tokens.ids, pixels)
    records = pack(
        np.array([content_hash(caption.encode()) for caption in captions], dtype=np.int64),
        np.array([content_hash(data) for data in raw], dtype=np.int64),
        part.images,
        part.texts,
    )
    with task.database.transaction() as session:
        number = features.announce(session, mine.dataset, name, len(records))
    task.blobs.put(name, records)

    def write(session: Session) -> None:
        features.record(session, number, part.new_keys)

    return Done(output(part.images_encoded, part.captions_encoded), mine.count, write)


def _inputs(task: Task, tokens: Tensor, pixels: Callable[[Sequence[int]], Tensor]) -> PartFeatures:
    """What whole towers take, of every pair: to look for it elsewhere would cost as much as to make it."""
    count, images = len(tokens), []
    for start in range(0, count, AT_ONCE):
        task.lease.progress(start)
        images.append(pixels(range(start, min(start + AT_ONCE, count))).numpy())
    return PartFeatures(np.concatenate(images), tokens.to(torch.int32).numpy(), {}, count, count)
