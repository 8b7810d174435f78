"""Writes what was read of an upload, a part at a time, so that memory stays bounded.

Positions and rows count from the beginning of the shard: what comes before it is known when all have been read."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from readers.pairs import EmbeddingBlock, RejectedPair
from readers.sandbox.image_checks import CheckedPair
from store.blobs import Blobs
from store.pairs import NewPair
from store.states import DuplicateKind
from store.thumbnails import name_of, packed
from worker.analysis.records import InUpload, content_hash, pack, pack_rows, row_hashes
from worker.attempts.task import Task
from worker.ingest.duplicates import Fingerprints, codes
from worker.ingest.tally import Tally
from worker.outputs import WrittenPart

PairFacts = tuple[Any, ...]
"""Key, caption, width, height, format, offset and length of the image, other columns, why it was turned away; of a
sample of a webdataset its shard and key too."""


def numbered(first: int) -> bytes:
    """The blob of embeddings that nothing describes."""
    return json.dumps({"numbered": first}).encode()


def described(pairs: list[PairFacts]) -> bytes:
    """The blob of pairs in the order of the upload."""
    return json.dumps({"pairs": pairs}, separators=(",", ":")).encode()


def read_pairs(blobs: Blobs, blob: str) -> int | list[PairFacts]:
    """The first row of what is numbered, or the pairs."""
    content = json.loads(blobs.get(blob))
    pairs: int | list[PairFacts] = content["numbered"] if "numbered" in content else content["pairs"]
    return pairs


def new_pairs(facts: list[PairFacts], *, position: int, row: int, part: int) -> Iterator[NewPair]:
    """Rows for the table, counted from `position` and, where accepted, from `row`."""
    for key, caption, width, height, image_format, offset, length, extra, error, *sample in facts:
        if error is not None:
            yield NewPair(position, key=key, caption=caption, error=error)
        else:
            shard, sample_key = sample or (None, None)
            yield NewPair(
                position,
                row,
                part,
                key,
                caption,
                width,
                height,
                image_format,
                offset,
                length,
                extra or None,
                shard=shard,
                sample=None if sample_key == key else sample_key,
            )
            row += 1
        position += 1


@dataclass
class PartWriter:
    """Collects pairs and writes them out; `flush` at the end."""

    task: Task
    upload_blob: str
    items: int = 0
    rows: int = 0
    rejected: int = 0
    first_reason: str | None = None
    width: int | None = None
    parts: list[WrittenPart] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    codes: defaultdict[DuplicateKind, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    _first_item: int = 0
    _first_row: int = 0
    _facts: list[PairFacts] = field(default_factory=list)
    _images: bytearray = field(default_factory=bytearray)
    _offsets: dict[int, int] = field(default_factory=dict)  # of images in the part, by their hash
    _thumbnails: list[tuple[bytes, ...]] = field(default_factory=list)  # of each row
    _thumbnail_bytes: int = 0
    _blocks: list[EmbeddingBlock] = field(default_factory=list)
    _hashes: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = field(default_factory=list)
    _numbered: int | None = None  # the first row, where the part is one block that nothing describes

    def take(self, item: CheckedPair | RejectedPair | EmbeddingBlock) -> None:
        if isinstance(item, EmbeddingBlock):
            self._take_block(item)
        elif isinstance(item, RejectedPair):
            self._reject(item)
        else:
            self._take_image(item)
        settings = self.task.settings
        pending = self.items - self._first_item
        held = len(self._images) + self._thumbnail_bytes
        if pending >= settings.ecif_shard_pairs or held >= settings.ecif_shard_bytes:
            self.flush()

    def _describe_pair(self, facts: PairFacts) -> None:
        if self._numbered is not None:
            self._describe_numbered()
        self._facts.append(facts)

    def _reject(self, item: RejectedPair) -> None:
        self._describe_pair((item.key, item.caption, None, None, None, None, None, None, item.reason))
        self.first_reason = self.first_reason or item.reason
        self.rejected += 1
        self.tally.reject(item.rejection)
        self.items += 1

    def _take_image(self, checked: CheckedPair) -> None:
        pair, image = checked.pair, checked.image
        hashed = content_hash(pair.image)
        if hashed not in self._offsets:  # several captions of one image: its bytes are kept once a part
            self._offsets[hashed] = len(self._images)
            self._images += pair.image
            self._thumbnail_bytes += sum(map(len, image.thumbnails))
        self._thumbnails.append(image.thumbnails)
        place = (image.format, self._offsets[hashed], len(pair.image))
        facts = (pair.key, pair.caption, image.width, image.height, *place, pair.extra, None)
        self._describe_pair(facts + (pair.sample or ()))
        self.fingerprints.add(
            self.items,
            {
                DuplicateKind.IMAGE: hashed,
                DuplicateKind.PIXELS: int.from_bytes(image.pixels, "little", signed=True),
                DuplicateKind.CAPTION: content_hash(pair.caption.encode()),
            },
            further=pair.further,
        )
        self.tally.accept(pair.caption, pair.extra, further=pair.further)
        self.rows += 1
        self.items += 1

    def _take_block(self, block: EmbeddingBlock) -> None:
        self.width = block.image.shape[1]
        # Equal embeddings stand for equal captions and images: a caption beside them may be missing or shortened.
        texts, images = row_hashes(block.text), row_hashes(block.image)
        self.fingerprints.add_block(self.items, {DuplicateKind.IMAGE: images, DuplicateKind.CAPTION: texts})
        self.codes[DuplicateKind.NEAR_IMAGE] += codes(block.image).tobytes()
        self.codes[DuplicateKind.NEAR_CAPTION] += codes(block.text).tobytes()
        alone = self.items == self._first_item
        self._blocks.append(block)
        self._hashes.append((texts, images))
        if block.numbered and alone:
            self._numbered = block.first_row
        else:
            self._describe_numbered()
            self._describe(block)
        self.rows += len(block.image)
        self.items += len(block.image)

    def _describe_numbered(self) -> None:
        """What was one block that nothing describes is a block among others after all."""
        if self._numbered is not None:
            self._numbered = None
            self._describe(self._blocks[0])

    def _describe(self, block: EmbeddingBlock) -> None:
        for key, caption, extra in zip(block.keys, block.captions, block.extras, strict=True):
            self.tally.accept(caption, extra)
            self._facts.append((key, caption, None, None, None, None, None, extra, None))

    def flush(self) -> None:
        """Write the pending part."""
        items, count = self.items - self._first_item, self.rows - self._first_row
        if not items:
            return
        number = f"{len(self.parts):06d}"
        name, pairs_name = self.task.blob_name(number), self.task.passing_name(number)
        if count:
            self.task.blobs.put(name, self._content())
            if (small := packed(self._thumbnails)) is not None:
                self.task.blobs.put(name_of(name), small)
        pairs = numbered(self._numbered) if self._numbered is not None else described(self._facts)
        self.task.blobs.put(pairs_name, pairs)
        self.parts.append(WrittenPart(name if count else None, pairs_name, items, count))
        self._first_item, self._first_row, self._numbered = self.items, self.rows, None
        self._facts, self._images, self._offsets, self._blocks, self._hashes = [], bytearray(), {}, [], []
        self._thumbnails, self._thumbnail_bytes = [], 0

    def _content(self) -> memoryview:
        if not self._blocks:
            return memoryview(self._images)
        text_hashes, image_hashes = (np.concatenate(side) for side in zip(*self._hashes, strict=True))
        placement = self._blocks[0].placement
        if placement is None:
            images, texts = (np.concatenate([getattr(b, side) for b in self._blocks]) for side in ("image", "text"))
            return pack(text_hashes, image_hashes, images, texts)
        rows = np.concatenate([block.rows for block in self._blocks if block.rows is not None])
        where = InUpload(self.upload_blob, placement.image, placement.text)
        return pack_rows(text_hashes, image_hashes, rows, self.width or 0, where)
