"""COCO captions: one JSON of images and of annotations that caption them, beside the images.

The JSON is read as a stream, twice. What stays in memory of it is 24 bytes an image and an annotation and a table of
image ids; captions and other fields wait in a temporary file, so that an image's captions come out together.
"""

import json
import posixpath
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import IO, Any, final

import numpy as np

from readers.archives.archive import Archive
from readers.archives.member_bytes import StoredMember
from readers.archives.members import BaseNames, suffix
from readers.formats.definition import Contents, DatasetFormat, is_image, some
from readers.pair_fields import image_pairs, shown
from readers.pairs import ImagePair, Item, RejectedPair
from readers.printable import printable
from readers.refusals import Rejection, UploadRefused
from readers.tables.json_tables import begins_with, list_of_objects

_LOOKED_INTO = 20
_LOOKED_AT_BYTES = 1 << 20


def caption_files(archive: Archive, contents: Contents) -> list[int]:
    """The COCO files of an archive; where some are named for captions, only those."""
    candidates = [at for at in contents.first_captions if suffix(archive.members.name(at)) == ".json"]
    candidates.sort(key=lambda at: "caption" not in _base(archive, at))
    matches = [at for at in candidates[:_LOOKED_INTO] if _is_coco(archive, at)]
    named = [at for at in matches if "caption" in _base(archive, at)]
    return sorted(named or matches)


@final
class Coco:
    """Pairs in the order of the files and of their images; of one image, in the order of its annotations.

    The key is the image's `file_name`, which is looked for beside the JSON, from the root, and by its last name.
    """

    ignored_columns: tuple[str, ...] = ()
    listable = True

    def __init__(self, archive: Archive, files: Sequence[int]) -> None:
        self._archive, self._files, self._limits = archive, files, archive.limits
        self._images = BaseNames(archive.members, (at for at, name in enumerate(archive.members) if is_image(name)))
        self._named = bytearray(len(archive.members))
        self.total: int | None = None

    @property
    def unreferenced(self) -> int:
        return sum(is_image(name) for name, named in zip(self._archive.members, self._named, strict=True) if not named)

    def __iter__(self) -> Iterator[Item]:
        for file in self._files:
            name, size = self._archive.members.name(file), self._archive.size(file)
            if size > self._limits.max_json_bytes:
                reason = f"{name} has {size} bytes; {self._limits.max_json_bytes} is the most for one JSON document"
                raise UploadRefused("too_large", reason)
            with tempfile.TemporaryFile(dir=self._archive.scratch) as spool:
                yield from self._of_file(file, _Spool(spool))

    def _of_file(self, file: int, spool: "_Spool") -> Iterator[Item]:
        name = self._archive.members.name(file)
        by_id: dict[Any, int] = {}
        for image in self._items(file, "images"):
            by_id[_id(image.get("id"))] = spool.add(image)
        image_count, owners = len(spool), array("q")
        for annotation in self._items(file, "annotations"):
            owner = by_id.get(_id(annotation.get("image_id")))
            if owner is None:
                yield self._orphan(annotation, name)
            else:
                owners.append(owner)
                spool.add(annotation)
        if not owners:
            raise UploadRefused("missing_column", f"{name} has no annotation of any of its {image_count} images")
        order = np.argsort(np.array(owners), kind="stable")
        counts = np.bincount(np.array(owners), minlength=image_count)
        at = 0
        for number in range(image_count):
            mine = order[at : at + counts[number]]
            at += int(counts[number])
            yield from self._of_image(spool.get(number), [spool.get(image_count + int(n)) for n in mine], name)

    def _of_image(self, image: dict[str, Any], annotations: list[dict[str, Any]], name: str) -> Iterator[Item]:
        file_name = image.get("file_name")
        position = self._find(file_name, posixpath.dirname(name))
        if position is None or not annotations:
            what = printable(str(file_name), 300)
            missing = (f"no file {what} in the archive", Rejection.NO_IMAGE)
            if position is not None:
                missing = (f"{what} has no annotation", Rejection.NO_CAPTION)
            for caption in [annotation.get("caption") for annotation in annotations] or [None]:
                reason = f"image {printable(str(image.get('id')), 60)} of {name}: {missing[0]}"
                yield RejectedPair(shown(file_name), shown(caption), reason, missing[1])
            return

        @cache
        def content() -> bytes | StoredMember:
            return self._archive.image(position)

        further = False
        for annotation in annotations:
            values = {f: value for f, value in image.items() if f not in ("id", "file_name")}
            values |= {f: value for f, value in annotation.items() if f not in ("id", "caption")}
            pairs = image_pairs(
                where=f"annotation {printable(str(annotation.get('id')), 60)} of {name}",
                key=file_name,
                caption=annotation.get("caption"),
                values=values | {"annotation_id": annotation.get("id")},
                taken=(),
                image=content,
                limits=self._limits,
            )
            for pair in pairs:
                yield replace(pair, further=True) if further and isinstance(pair, ImagePair) else pair
                further = further or isinstance(pair, ImagePair)

    def _orphan(self, annotation: dict[str, Any], name: str) -> RejectedPair:
        number, image = (printable(str(annotation.get(field)), 60) for field in ("id", "image_id"))
        reason = f"annotation {number} of {name}: there is no image {image}"
        return RejectedPair(None, shown(annotation.get("caption")), reason, Rejection.NO_IMAGE)

    def _find(self, file_name: object, folder: str) -> int | None:
        if not isinstance(file_name, str) or not file_name:
            return None
        members = self._archive.members
        for path in dict.fromkeys((posixpath.normpath(posixpath.join(folder, file_name)), file_name)):
            if (position := members.find(path)) is not None:
                break
        else:
            position = self._images.find(file_name)
        if position is not None:
            self._named[position] = 1
        return position

    def _items(self, file: int, field: str) -> Iterator[dict[str, Any]]:
        with self._archive.open(file) as stream:
            yield from list_of_objects(stream, field, self._archive.members.name(file), self._limits.max_json_depth)


class _Spool:
    """Objects in a temporary file, by number."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._ends = file, array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, item: dict[str, Any]) -> int:
        self._file.write(raw := json.dumps(item).encode())
        self._ends.append(self._ends[-1] + len(raw))
        return len(self) - 1

    def get(self, number: int) -> dict[str, Any]:
        start, end = self._ends[number], self._ends[number + 1]
        self._file.seek(start)
        item: dict[str, Any] = json.loads(self._file.read(end - start))
        return item


def _id(value: object) -> object:
    """An id that can be looked up; two kinds of equal look (1 and "1") are one."""
    return str(value) if isinstance(value, str | int) else None


def _base(archive: Archive, position: int) -> str:
    return posixpath.basename(archive.members.name(position)).lower()


def _is_coco(archive: Archive, position: int) -> bool:
    """Whether the beginning of a JSON is that of a list of images with files, or of annotations with captions."""
    with archive.open(position) as stream:
        head = stream.read(min(_LOOKED_AT_BYTES, archive.size(position)))
    names = {("images", "file_name"), ("annotations", "caption")}
    return begins_with(head, names, archive.limits.max_json_depth)


def _choose(archive: Archive, contents: Contents) -> list[int]:
    return some(caption_files(archive, contents), "coco", "JSON of COCO captions")


COCO = DatasetFormat(
    name="coco",
    kind="images",
    precedence=70,
    fits=lambda archive, contents: bool(contents.images and caption_files(archive, contents)),
    choose=_choose,
    read=lambda archive, _contents, chosen, _template: Coco(archive, chosen),
)
"""images in an archive with a JSON of COCO captions"""
