"""Croissant: a JSON-LD description (mlcommons.org/croissant) beside the files that it describes.

Read are record sets of an image and its caption that come out of one table (CSV, TSV, JSON lines, parquet): the image
in the table as bytes, as a path, or as a file of a file set that a column of the table refers to. The rest is refused
with its reason; nothing is downloaded.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from readers.archives.archive import Archive
from readers.archives.members import BaseNames, suffix
from readers.formats.definition import Contents, DatasetFormat, only, some
from readers.formats.folder import Folder
from readers.formats.parquet import ParquetPairs
from readers.pairs import PairSource
from readers.printable import printable
from readers.refusals import PairRefused, UploadRefused
from readers.tables.json_tables import json_object
from readers.tables.metadata import CAPTION_COLUMNS, TABLE_SUFFIXES, Columns
from readers.tables.parquet import parquet_file

_MOST_PATTERNS = 100
_FILE_PROPERTIES = ("filename", "fullpath", "filepath")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a record set: where its values come from."""

    name: str
    kinds: frozenset[str]
    origin: str | None
    column: str | None
    file_property: str | None
    transformed: bool
    refers_to: str | None
    """the file set whose files its values name"""


def croissant_source(archive: Archive, position: int) -> PairSource:
    """The reader of the pairs that a description speaks of.

    Raises:
        UploadRefused: it describes no pairs that are read here; the message says what is in the way.
    """
    return _Description(archive, position).source()


class _Description:
    def __init__(self, archive: Archive, position: int) -> None:
        self._archive, self._name = archive, archive.members.name(position)
        self._folder = posixpath.dirname(self._name)
        size, most = archive.size(position), archive.limits.max_header_bytes
        if size > most:
            raise self._refused(f"it has {size} bytes; {most} is the most")
        try:
            with archive.open(position) as stream:
                self._document = json_object(stream.read(size))
        except PairRefused as error:
            raise self._refused(str(error)) from error
        self._files = {_id(entry): entry for entry in _objects(self._document.get("distribution"))}

    def source(self) -> PairSource:
        sets = _objects(self._document.get("recordSet"))
        readable = []
        for record_set in sets:
            fields = [_field(entry) for entry in _objects(record_set.get("field"))]
            images = [field for field in fields if "ImageObject" in field.kinds]
            texts = [field for field in fields if "Text" in field.kinds and field.refers_to is None]
            if images and texts:
                readable.append((_id(record_set), fields, images, texts))
        if len(readable) != 1:
            names = ", ".join(printable(name, 60) for name, *_ in readable) or "none"
            raise self._refused(f"one record set of an image and a text is read; of {len(sets)} that is {names}")
        name, fields, images, texts = readable[0]
        where = f"record set {printable(name, 60)}"
        image = self._only(images, ("image",), f"{where}: fields of images")
        caption = self._only(texts, CAPTION_COLUMNS, f"{where}: fields of text")
        if caption.origin is None or caption.column is None or caption.transformed:
            raise self._refused(f"{where}: field {caption.name} is not a column of a table as it stands")
        tables = self._tables(caption.origin)
        if image.origin == caption.origin and image.column is not None:
            return self._in_table(tables, image, caption.column)
        if image.file_property == "content" and not image.transformed and image.origin is not None:
            return self._beside(tables, image.origin, fields, caption)
        raise self._refused(
            f"{where}: field {image.name} is neither a column of the table of {caption.name} nor the content of files"
        )

    def _in_table(self, tables: list[int], image: _Field, caption: str) -> PairSource:
        archive, column = self._archive, image.column or ""
        if all(suffix(archive.members.name(at)) == ".parquet" for at in tables):
            files = [
                parquet_file(archive.members.name(at), partial(archive.extent, at), archive.limits) for at in tables
            ]
            if any(one.name == column and one.image for one in files[0].columns):
                return ParquetPairs(files, archive.limits, image=column, caption=caption)
        if image.transformed:
            raise self._refused(f"field {image.name} is transformed, which is not done here")
        return Folder(archive, tables, Columns(column, None, caption))

    def _beside(self, tables: list[int], file_set: str, fields: list[_Field], caption: _Field) -> PairSource:
        """Images of a file set, named by a column of the caption's table."""
        naming = [f for f in fields if f.refers_to == file_set and f.origin == caption.origin and f.column]
        if not naming:
            raise self._refused(
                f"no field refers to the file names of {printable(file_set, 60)} from the table of {caption.name}"
            )
        images = BaseNames(self._archive.members, self._matching(file_set))
        columns = Columns(naming[0].column, None, caption.column)
        return Folder(self._archive, tables, columns, otherwise=images.find)

    def _only(self, fields: list[_Field], preferred: tuple[str, ...], what: str) -> _Field:
        if len(fields) == 1:
            return fields[0]
        by_name = {field.name.rsplit("/", 1)[-1].lower(): field for field in fields}
        for name in preferred:
            if name in by_name:
                return by_name[name]
        names = ", ".join(printable(field.name, 60) for field in fields)
        raise self._refused(f"{what}: which is meant is not told; there are {names}")

    def _tables(self, origin: str) -> list[int]:
        positions = sorted(self._matching(origin), key=self._archive.members.name)
        kinds = {suffix(self._archive.members.name(at)) for at in positions}
        if not positions:
            raise self._refused(f"{printable(origin, 200)} is not in the upload")
        if not kinds <= TABLE_SUFFIXES:
            raise self._refused(f"{printable(origin, 200)} is {', '.join(kinds)}; read are {', '.join(TABLE_SUFFIXES)}")
        return positions

    def _matching(self, origin: str) -> Iterator[int]:
        """The members that a file object or a file set stands for."""
        entry, members = self._files.get(origin, {}), self._archive.members
        patterns = entry.get("includes")
        if patterns is None:
            for place in (entry.get("contentUrl"), entry.get("name"), origin):
                for path in self._paths(place):
                    if (position := members.find(path)) is not None:
                        yield position
                        return
            return
        if len(_listed(patterns)) > _MOST_PATTERNS:
            raise self._refused(f"{printable(origin, 60)} has more than {_MOST_PATTERNS} patterns")
        wanted = [path for pattern in _listed(patterns) for path in self._paths(pattern)]
        for position, name in enumerate(members):
            if any(fnmatchcase(name, pattern) for pattern in wanted):
                yield position

    def _paths(self, place: object) -> list[str]:
        """Beside the description, from the root, and by the last name of an address."""
        if not isinstance(place, str) or not place:
            return []
        if "://" in place:
            place = posixpath.basename(place.split("?")[0])
        return [posixpath.normpath(posixpath.join(self._folder, place)), posixpath.normpath(place)]

    def _refused(self, why: str) -> UploadRefused:
        return UploadRefused("unreadable_croissant", f"{self._name} describes nothing that is read here: {why}")


def _field(entry: dict[str, Any]) -> _Field:
    source, refers = _object(entry.get("source")), _object(entry.get("references"))
    extract = _object(source.get("extract"))
    refers_to = _object(refers.get("fileSet")).get("@id")
    if _object(refers.get("extract")).get("fileProperty") not in _FILE_PROPERTIES:
        refers_to = None
    transform = source.get("transform")
    only_bytes = _object(transform).get("jsonPath") == "bytes"  # how the Hugging Face hub speaks of an image's struct
    return _Field(
        name=str(entry.get("name") or _id(entry)),
        kinds=frozenset(str(kind).replace("/", ":").rsplit(":", 1)[-1] for kind in _listed(entry.get("dataType"))),
        origin=_id(_object(source.get("fileObject")) or _object(source.get("fileSet"))) or None,
        column=_text(extract.get("column")),
        file_property=_text(extract.get("fileProperty")),
        transformed=(transform is not None and not only_bytes) or "regex" in source or "jsonPath" in extract,
        refers_to=_text(refers_to),
    )


def _id(entry: dict[str, Any]) -> str:
    return str(entry.get("@id") or entry.get("name") or "")


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [entry for entry in _listed(value) if isinstance(entry, dict)]


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _choose(archive: Archive, contents: Contents) -> list[int]:
    return [only(archive, some(contents.croissants, "croissant", "croissant.json"))]


CROISSANT = DatasetFormat(
    name="croissant",
    kind="images",
    precedence=10,
    fits=lambda _archive, contents: bool(contents.croissants),
    choose=_choose,
    read=lambda archive, _contents, chosen, _template: croissant_source(archive, chosen[0]),
    complete=True,  # it says itself what belongs to it
)
"""an archive that a `croissant.json` describes"""
