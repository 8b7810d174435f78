"""Ingest: read an upload in its own format, check every pair, write parts and a row for each pair, good or bad.

A bad pair becomes a row with a reason; a bad upload fails the dataset with a reason.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from encoders import ImageRefused, inspect_image
from store import datasets, pairs, shards
from store.errors import InvalidError, LostLeaseError
from store.pairs import NewPair
from store.tables import Dataset, Part
from worker.content_hash import content_hash
from worker.formats import DEFAULT_TEMPLATE, EmbeddingBlock, ImagePair, RejectedPair, UploadReader, UploadRefused
from worker.records import pack
from worker.task import Done, Task


def run(task: Task) -> Done:
    """Ingest a dataset.

    Raises:
        InvalidError: the upload cannot be read, or no usable pair is left.
    """
    with task.database.transaction() as session:
        dataset = session.get(Dataset, task.claim.dataset_id)
        if dataset is None or dataset.deleted_at is not None:
            raise LostLeaseError(f"dataset {task.claim.dataset_id} is gone")
        shards.fence(session, task.claim)
        datasets.clear_pairs(session, dataset.id)
    writer = _Writer(task, dataset)
    try:
        with (
            task.blobs.local_path(dataset.upload_blob) as path,
            UploadReader(
                path,
                filename=dataset.filename,
                format=dataset.format,
                caption_template=dataset.caption_template or DEFAULT_TEMPLATE,
            ) as reader,
        ):
            writer.total = reader.total or 0
            for item in reader:
                writer.take(item)
            writer.flush()
            found = datasets.Ingested(
                format=reader.format.value,
                kind=reader.kind,
                width=writer.width,
                pair_count=writer.rows,
                rejected_count=writer.rejected,
                warnings=_warnings(reader),
            )
    except UploadRefused as refused:
        raise InvalidError(refused.code, refused.message, refused.param) from refused
    if not writer.rows:
        first = f"; the first of {writer.rejected}: {writer.first_reason}" if writer.first_reason else ""
        raise InvalidError("no_usable_pair", f"no usable pair is left{first}", "file")

    def write(session: Session) -> None:
        datasets.finish_ingest(session, dataset.id, found)

    return Done({"pairs": writer.rows, "rejected": writer.rejected}, writer.position, write)


def _warnings(reader: UploadReader) -> list[str]:
    found = []
    if reader.unreferenced:
        found.append(f"{reader.unreferenced} images in the archive are named by no row and were left out")
    if reader.ignored_columns:
        found.append(f"columns of bytes are not kept: {', '.join(reader.ignored_columns)}")
    return found


@dataclass
class _Writer:
    """Collects a part at a time; everything before it is committed, so memory stays bounded."""

    task: Task
    dataset: Dataset
    total: int = 0
    position: int = 0  # of the next pair in the upload
    rows: int = 0  # accepted and committed or pending
    rejected: int = 0
    first_reason: str | None = None
    width: int | None = None
    _part: int = 0
    _first_row: int = 0
    _pending: list[NewPair] = field(default_factory=list)
    _images: bytearray = field(default_factory=bytearray)
    _blocks: list[tuple[Any, Any]] = field(default_factory=list)

    def take(self, item: ImagePair | RejectedPair | EmbeddingBlock) -> None:
        if isinstance(item, EmbeddingBlock):
            self._take_block(item)
        elif isinstance(item, RejectedPair):
            self._reject(item.key, item.caption, item.reason)
        else:
            self._take_image(item)
        self.task.lease.progress(self.position, max(self.total, self.position))
        settings = self.task.settings
        if len(self._pending) >= settings.ecif_shard_pairs or len(self._images) >= settings.ecif_shard_bytes:
            self.flush()

    def _reject(self, key: str | None, caption: str | None, reason: str) -> None:
        self._pending.append(NewPair(self.position, key=key, caption=caption, error=reason))
        self.first_reason = self.first_reason or reason
        self.rejected += 1
        self.position += 1

    def _take_image(self, pair: ImagePair) -> None:
        try:
            width, height, image_format = inspect_image(pair.image, max_pixels=self.task.settings.ecif_max_image_pixels)
        except ImageRefused as refused:
            self._reject(pair.key, pair.caption, f"image of {pair.key}: {refused.reason}")
            return
        self._pending.append(
            NewPair(
                self.position,
                row=self.rows,
                part=self._part,
                key=pair.key,
                caption=pair.caption,
                width=width,
                height=height,
                image_format=image_format,
                image_offset=len(self._images),
                image_length=len(pair.image),
                extra=dict(pair.extra) or None,
            )
        )
        self._images += pair.image
        self.rows += 1
        self.position += 1

    def _take_block(self, block: EmbeddingBlock) -> None:
        self.width = block.image.shape[1]
        for key, caption, extra in zip(block.keys, block.captions, block.extras, strict=True):
            self._pending.append(
                NewPair(
                    self.position,
                    row=self.rows,
                    part=self._part,
                    key=key,
                    caption=caption,
                    extra=dict(extra) or None,
                )
            )
            self.rows += 1
            self.position += 1
        self._blocks.append((block.image, block.text))

    def flush(self) -> None:
        """Write the pending part: its blob first, then its rows in one transaction."""
        if not self._pending:
            return
        count = self.rows - self._first_row
        blob = self.task.blob_name(f"{self._part:06d}")
        if count:
            self.task.blobs.put(blob, self._content())
        with self.task.database.transaction() as session:
            shards.fence(session, self.task.claim)
            pairs.add(session, self.dataset.number, self._pending)
            if count:
                part = Part(
                    dataset_id=self.dataset.id, part=self._part, blob=blob, first_row=self._first_row, count=count
                )
                datasets.add_part(session, part)
        self._part += 1 if count else 0
        self._first_row = self.rows
        self._pending, self._images, self._blocks = [], bytearray(), []

    def _content(self) -> bytes:
        if not self._blocks:
            return bytes(self._images)
        images = np.concatenate([image for image, _ in self._blocks])
        texts = np.concatenate([text for _, text in self._blocks])
        # Equal embeddings stand for equal captions and images: a caption beside them may be missing or shortened.
        hashes = [np.array([content_hash(row.tobytes()) for row in side], dtype=np.int64) for side in (texts, images)]
        return pack(hashes[0], hashes[1], images, texts)
