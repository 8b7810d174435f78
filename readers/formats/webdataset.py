"""Sidecar captions: webdataset and img2dataset tars, and folders in which `a.txt` or `a.json` lies beside `a.jpg`."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import final

from readers.archives.archive import Archive
from readers.formats.definition import (
    CAPTION_SUFFIXES,
    IMAGE_SUFFIXES,
    Contents,
    DatasetFormat,
    captions_beside,
    is_image,
)
from readers.formats.image_folder import has_classes
from readers.pair_fields import image_pairs, shown
from readers.pairs import ImagePair, Item, RejectedPair, Sample
from readers.printable import flaw, printable
from readers.refusals import PairRefused, Rejection
from readers.tables.json_tables import json_object
from readers.tables.metadata import first_caption_column

_IMG2DATASET_TABLE = re.compile(r"(.*/)?\d+\.parquet")
_IMG2DATASET_STATS = re.compile(r"(.*/)?\d+_stats")


@dataclass(slots=True)
class _Sample:
    """Positions of the members that share a name up to its first dot."""

    name: str
    image: int | None = None
    text: int | None = None
    json: int | None = None

    @property
    def whole(self) -> bool:
        return self.image is not None and (self.text is not None or self.json is not None)

    def lacks(self, other: "_Sample") -> bool:
        """Whether `other` has only what this one is waiting for."""
        caption, other_caption = (s.text is not None or s.json is not None for s in (self, other))
        return (self.image is None or other.image is None) and not (caption and other_caption)


@final
class Webdataset:
    """Pairs in archive order.

    Neighbours of one name are one sample, as webdataset has it. Tars that were not written in that order (`tar cf` of
    a folder) are read too: a half waits for its other half, for the last `max_waiting` halves.
    """

    ignored_columns: tuple[str, ...] = ()
    unreferenced = 0
    listable = True

    def __init__(self, archive: Archive, images: int) -> None:
        self._archive, self._limits = archive, archive.limits
        self.total: int | None = images

    def __iter__(self) -> Iterator[Item]:
        for shard, positions in self._archive.shards:
            yield from self._of_shard(shard, positions)
            if shard in self._archive.damaged:
                yield RejectedPair(None, None, self._archive.damaged[shard], Rejection.UNREADABLE_SHARD)

    def _of_shard(self, shard: str, positions: range) -> Iterator[Item]:
        before = f"{shard}: " if shard else ""
        waiting: dict[str, _Sample] = {}
        for sample in self._neighbours(positions):
            if not sample.whole:
                other = waiting.pop(sample.name, None)
                if other is not None and other.lacks(sample):
                    sample = _joined(other, sample)
                elif other is not None:
                    yield from self._half(other, before)
            if sample.whole:
                yield from self._pairs(sample, shard)
                continue
            waiting[sample.name] = sample
            if len(waiting) > self._limits.max_waiting:
                yield from self._half(waiting.pop(next(iter(waiting))), before)
        for sample in waiting.values():
            yield from self._half(sample, before)

    def _neighbours(self, positions: range) -> Iterator[_Sample]:
        current = _Sample("")
        for position in positions:
            member = self._archive.members.name(position)
            folder, slash, base = member.rpartition("/")
            stem, _, kind = base.partition(".")
            name, kind = folder + slash + stem, f".{kind.lower()}"
            if not stem or (kind not in IMAGE_SUFFIXES and kind not in CAPTION_SUFFIXES):
                continue
            slot = "image" if kind in IMAGE_SUFFIXES else kind[1:].replace("txt", "text")
            if name != current.name or getattr(current, slot) is not None:
                if current.name:
                    yield current
                current = _Sample(name)
            setattr(current, slot, position)
        if current.name:
            yield current

    def _pairs(self, sample: _Sample, shard: str) -> Iterator[ImagePair | RejectedPair]:
        where = f"{shard}: {printable(sample.name)}" if shard else printable(sample.name)
        try:
            values = self._json(sample)
            column = first_caption_column(tuple(values))
            caption = values[column] if column else None
            if sample.text is not None:
                caption = self._caption_file(sample.text)
        except PairRefused as error:
            yield RejectedPair(shown(sample.name), None, f"{where}: {error}", error.rejection)
            return
        yield from image_pairs(
            where=where,
            key=values.get("key", sample.name),
            caption=caption,
            values=values,
            taken={"key", column} if column and values[column] == caption else {"key"},
            image=partial(self._archive.image, sample.image or 0),
            limits=self._limits,
            sample=None if flaw(shard) or flaw(sample.name) else Sample(shard, sample.name),
        )

    def _half(self, sample: _Sample, before: str) -> Iterator[RejectedPair]:
        if sample.text is None and sample.image is None and _IMG2DATASET_STATS.fullmatch(sample.name):
            return  # what img2dataset says about a shard
        rejection = Rejection.NO_IMAGE if sample.image is None else Rejection.NO_CAPTION
        missing = "no image" if sample.image is None else "no caption (.txt or .json)"
        position = next(p for p in (sample.image, sample.text, sample.json) if p is not None)
        reason = f"{before}{printable(self._archive.members.name(position))}: {missing} beside it"
        yield RejectedPair(shown(sample.name), None, reason, rejection)

    def _json(self, sample: _Sample) -> dict[str, object]:
        if sample.json is None:
            return {}
        try:
            return json_object(self._text(sample.json))
        except PairRefused as error:
            raise PairRefused(f"its .json: {error}", error.rejection) from error

    def _caption_file(self, position: int) -> str:
        return self._text(position).removesuffix("\n").removesuffix("\r")

    def _text(self, position: int) -> str:
        size, most = self._archive.size(position), self._limits.max_line_bytes
        if size > most:
            raise PairRefused(
                f"{self._archive.members.name(position)} has {size} bytes; {most} is the most", Rejection.TOO_LARGE
            )
        raw = self._archive.read(position)
        is_utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
        try:
            return raw.decode("utf-16" if is_utf16 else "utf-8-sig")
        except UnicodeDecodeError:
            name = self._archive.members.name(position)
            raise PairRefused(f"{name} is not UTF-8", Rejection.UNREADABLE_ROW) from None


def _joined(one: _Sample, other: _Sample) -> _Sample:
    return _Sample(
        one.name,
        one.image if one.image is not None else other.image,
        one.text if one.text is not None else other.text,
        one.json if one.json is not None else other.json,
    )


def _fits(archive: Archive, contents: Contents) -> bool:
    if not contents.images or not contents.captions:
        return False
    return captions_beside(archive, contents) or not has_classes(archive)


def _numbered(archive: Archive, _contents: Contents) -> set[str]:
    """The folders of files that img2dataset leaves, where all of them are numbers."""
    folders = {posixpath.dirname(name) for name in archive.members if is_image(name)}
    return folders if all(posixpath.basename(folder).isdigit() for folder in folders) else set()


WEBDATASET = DatasetFormat(
    name="webdataset",
    kind="images",
    precedence=80,
    fits=_fits,
    choose=lambda _archive, _contents: [],
    read=lambda archive, contents, _chosen, _template: Webdataset(archive, contents.images),
    numbered=_numbered,
    takes_captions=True,
    repeated=lambda name: _IMG2DATASET_TABLE.fullmatch(name) is not None,
)
"""images in an archive with a `.txt` or `.json` of the same name; img2dataset's tars too, and archives of tars"""
