"""Ingest: read an upload in its own format, check every pair, write parts and a row for each pair, good or bad.

A bad pair becomes a row with a reason; a bad upload fails the dataset with a reason.
"""

from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from store import datasets, duplicates, pairs, shards
from store.errors import InvalidError, LostLeaseError
from store.pairs import NewPair
from store.states import DuplicateKind
from store.tables import Dataset, Part
from worker.content_hash import content_hash, row_hashes
from worker.equals import Fingerprints
from worker.formats import DEFAULT_TEMPLATE, EmbeddingBlock, RejectedPair, Rejection, UploadReader, UploadRefused
from worker.formats.printable import printable
from worker.inspection.limits import DecoderLimits
from worker.inspection.ordered import CheckedPair, inspected
from worker.records import InUpload, pack, pack_rows
from worker.tally import Tally
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
            limits = DecoderLimits(max_pixels=task.settings.ecif_max_image_pixels)
            with closing(inspected(reader, limits)) as items:
                for item in items:
                    writer.take(item)
            writer.flush()
            equal = writer.fingerprints.equal()
            found = datasets.Ingested(
                format=reader.format.value,
                kind=reader.kind,
                width=writer.width,
                pair_count=writer.rows,
                rejected_count=writer.rejected,
                warnings=_warnings(reader),
                summary=writer.tally.summary(equal, writer.rows) | _about_upload(reader),
            )
    except UploadRefused as refused:
        raise InvalidError(refused.code, refused.message, refused.param) from refused
    if not writer.rows:
        first = f"; the first of {writer.rejected}: {writer.first_reason}" if writer.first_reason else ""
        raise InvalidError("no_usable_pair", f"no usable pair is left{first}", "file")

    def write(session: Session) -> None:
        for kind, groups in equal.items():
            duplicates.add(session, dataset.number, kind, groups.rows())
        datasets.finish_ingest(session, dataset.id, found)

    return Done({"pairs": writer.rows, "rejected": writer.rejected}, writer.position, write)


def _about_upload(reader: UploadReader) -> dict[str, Any]:
    return {
        "repeated_keys": reader.repeated_keys,
        "unreferenced_images": reader.unreferenced,
        "missing_shards": list(reader.missing_shards),
        "left_out": dict(reader.left_out),
    }


def _warnings(reader: UploadReader) -> list[str]:
    found = []
    if reader.missing_shards:
        found.append(f"the set has gaps; not in the upload: {', '.join(reader.missing_shards)}")
    if reader.left_out:
        seen = ", ".join(f"{count} {kind}" for kind, count in sorted(reader.left_out.items()))
        found.append(f"a mixture of formats: it was read as {reader.format.value}, and left out were {seen}")
    if reader.repeated_keys:
        first = printable(reader.first_repeated_key or "", 100)
        found.append(f"{reader.repeated_keys} keys were given before and became KEY#2, KEY#3; the first is {first}")
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
    tally: Tally = field(default_factory=Tally)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    _part: int = 0
    _first_row: int = 0
    _pending: list[NewPair] = field(default_factory=list)
    _images: bytearray = field(default_factory=bytearray)
    _offsets: dict[int, int] = field(default_factory=dict)  # of images in the part, by their hash
    _blocks: list[EmbeddingBlock] = field(default_factory=list)
    _hashes: list[tuple[Any, Any]] = field(default_factory=list)

    def take(self, item: CheckedPair | RejectedPair | EmbeddingBlock) -> None:
        if isinstance(item, EmbeddingBlock):
            self._take_block(item)
        elif isinstance(item, RejectedPair):
            self._reject(item.key, item.caption, item.reason, item.rejection)
        else:
            self._take_image(item)
        self.task.lease.progress(self.position, max(self.total, self.position))
        settings = self.task.settings
        if len(self._pending) >= settings.ecif_shard_pairs or len(self._images) >= settings.ecif_shard_bytes:
            self.flush()

    def _reject(self, key: str | None, caption: str | None, reason: str, rejection: Rejection) -> None:
        self._pending.append(NewPair(self.position, key=key, caption=caption, error=reason))
        self.first_reason = self.first_reason or reason
        self.rejected += 1
        self.tally.reject(rejection)
        self.position += 1

    def _take_image(self, checked: CheckedPair) -> None:
        pair, image = checked.pair, checked.image
        hashed = content_hash(pair.image)
        if hashed not in self._offsets:  # several captions of one image: its bytes are kept once a part
            self._offsets[hashed] = len(self._images)
            self._images += pair.image
        self._pending.append(
            NewPair(
                self.position,
                row=self.rows,
                part=self._part,
                key=pair.key,
                caption=pair.caption,
                width=image.width,
                height=image.height,
                image_format=image.format,
                image_offset=self._offsets[hashed],
                image_length=len(pair.image),
                extra=dict(pair.extra) or None,
            )
        )
        self.fingerprints.add(
            self.position,
            {
                DuplicateKind.IMAGE: hashed,
                DuplicateKind.PIXELS: int.from_bytes(image.pixels, "little", signed=True),
                DuplicateKind.CAPTION: content_hash(pair.caption.encode()),
            },
            further=pair.further,
        )
        self.tally.accept(pair.caption, pair.extra, further=pair.further)
        self.rows += 1
        self.position += 1

    def _take_block(self, block: EmbeddingBlock) -> None:
        self.width = block.image.shape[1]
        # Equal embeddings stand for equal captions and images: a caption beside them may be missing or shortened.
        texts, images = row_hashes(block.text), row_hashes(block.image)
        self.fingerprints.add_block(self.position, {DuplicateKind.IMAGE: images, DuplicateKind.CAPTION: texts})
        for key, caption, extra in zip(block.keys, block.captions, block.extras, strict=True):
            if not block.numbered:
                self.tally.accept(caption, extra)
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
        self._blocks.append(block)
        self._hashes.append((texts, images))

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
        self._pending, self._images, self._offsets, self._blocks, self._hashes = [], bytearray(), {}, [], []

    def _content(self) -> bytes | memoryview:
        if not self._blocks:
            return memoryview(self._images)
        text_hashes, image_hashes = (np.concatenate(side) for side in zip(*self._hashes, strict=True))
        lying = self._blocks[0].lying
        if lying is None:
            images, texts = (np.concatenate([getattr(b, side) for b in self._blocks]) for side in ("image", "text"))
            return pack(text_hashes, image_hashes, images, texts)
        rows = np.concatenate([block.rows for block in self._blocks if block.rows is not None])
        where = InUpload(self.dataset.upload_blob, lying.image, lying.text)
        return pack_rows(text_hashes, image_hashes, rows, self.width or 0, where)
