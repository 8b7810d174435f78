"""Pairs in the rows of parquet files: images of Hugging Face and img2dataset, and embeddings as columns."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import IO, final

from readers.archives.archive import Archive
from readers.archives.member_bytes import Extent, Spent
from readers.archives.shards import by_number
from readers.formats.definition import Contents, DatasetFormat, some
from readers.formats.embeddings import Described, described_row, embedding_items
from readers.limits import Limits
from readers.pair_fields import image_pairs
from readers.pairs import ImagePair, Item, PairSource, RejectedPair
from readers.printable import printable
from readers.refusals import PairRefused, Rejection, UploadRefused
from readers.tables.metadata import Columns, column_of, first_caption_column
from readers.tables.parquet import Column, ParquetFile, ParquetRow, parquet_file, parquet_rows, parquet_vectors
from readers.tables.rows import BadRow, Row, place

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
_URL_NAMES = ("url", "image_url", "image_link")
_SIDES = {"image": ("image", "img"), "text": ("text", "txt", "caption")}


@final
class ParquetPairs:
    """Pairs in the order of the files and their rows. The key is `key`, else the image's path, else the row's number.

    Row numbers count from 0 over all files. `image` and `caption` name the columns, where a description names them.
    """

    unreferenced = 0
    listable = False

    def __init__(
        self, files: Sequence[ParquetFile], limits: Limits, *, image: str | None = None, caption: str | None = None
    ) -> None:
        self._limits = limits
        self._files: list[tuple[ParquetFile, list[str], str, str]] = []
        self.total: int | None = sum(file.rows for file in files)
        ignored: dict[str, None] = {}
        for file in files:
            columns = file.columns
            image_column = _checked(file, image) or _image_column(file.name, columns)
            caption_column = _checked(file, caption) or _caption_column(file.name, columns)
            wanted = [column.name for column in columns if not column.holds_bytes or column.name == image_column]
            ignored |= dict.fromkeys(column.name for column in columns if column.name not in wanted)
            self._files.append((file, wanted, image_column, caption_column))
        self.ignored_columns = tuple(ignored)

    def __iter__(self) -> Iterator[Item]:
        spent = Spent(self._limits)
        number = 0
        for file, wanted, image, caption in self._files:
            with file.locate() as extent:
                rows = parquet_rows(file.name, extent, self._limits, wanted, image)
                for row_number, row in enumerate(rows, start=1):
                    spent.add(len(row.image))
                    yield from self._pairs(row, caption, place(file.name, row_number, None), number)
                    number += 1

    def _pairs(self, row: ParquetRow, caption: str, where: str, number: int) -> Iterator[ImagePair | RejectedPair]:
        if isinstance(row.values, str):
            yield RejectedPair(None, None, f"{where}: {row.values}")
            return
        key = row.values.get("key")
        yield from image_pairs(
            where=where,
            key=(row.path or str(number)) if key is None else key,
            caption=row.values[caption],
            values=row.values,
            taken={caption, "key"},
            image=partial(self._image, row),
            limits=self._limits,
        )

    def _image(self, row: ParquetRow) -> bytes:
        if row.size is None:
            raise PairRefused(_why_no_image(row), Rejection.NO_IMAGE)
        if row.size > self._limits.max_member_bytes:
            most = self._limits.max_member_bytes
            raise PairRefused(f"the image has {row.size} bytes; {most} is the most", Rejection.TOO_LARGE)
        return row.image


def _why_no_image(row: ParquetRow) -> str:
    if row.path:
        return f"only the path of an image ({row.path}), not its bytes"
    values = row.values if isinstance(row.values, dict) else {}
    # img2dataset keeps the rows that it could not download, and says why.
    said = " ".join(str(values[column]) for column in ("status", "error_message") if values.get(column))
    return f"no image ({printable(said, 200)})" if said else "no image"


def _checked(file: ParquetFile, name: str | None) -> str | None:
    if name is not None and name not in (column.name for column in file.columns):
        raise _missing(file.name, name, file.columns)
    return name


def has_images(columns: Sequence[Column]) -> bool:
    """Whether a column holds images."""
    return bool(_image_candidates(columns))


def _image_candidates(columns: Sequence[Column]) -> list[str]:
    structs = [column.name for column in columns if column.image == "struct"]
    return structs + [column.name for column in columns if column.image == "plain" and column.name in _IMAGE_NAMES]


def _image_column(name: str, columns: list[Column]) -> str:
    candidates = _image_candidates(columns)
    urls = [column.name for column in columns if column.name.lower() in _URL_NAMES]
    if not candidates and urls:
        raise UploadRefused(
            "images_not_included",
            f"{name} holds addresses of images (column {printable(urls[0], 60)}) and not the images, and nothing is "
            "downloaded here: fetch them with img2dataset and upload what it leaves, or add columns of embeddings "
            "(image_embedding and text_embedding), or put image.npy and text.npy beside it",
        )
    if not candidates:
        raise _missing(name, "of images (a struct of bytes and path, or bytes named image)", columns)
    named = [column for column in _IMAGE_NAMES if column in candidates]
    return (named + candidates)[0]


def _caption_column(name: str, columns: list[Column]) -> str:
    caption = first_caption_column(tuple(column.name for column in columns if not column.holds_bytes))
    if caption is None:
        raise _missing(name, "caption or text", columns)
    return caption


def _missing(name: str, wanted: str, columns: list[Column]) -> UploadRefused:
    seen = ", ".join(f"{printable(column.name, 60)} ({column.type})" for column in columns[:50])
    return UploadRefused("missing_column", f"{name} has no column {wanted}; its columns are: {seen}")


@final
class ParquetEmbeddings:
    """Rows in the order of the files. The embeddings are the columns of float lists named `image…` and `text…`.

    The key is `key` or `uid`, else the row's number, which counts from 0 over all files.
    """

    unreferenced = 0
    listable = False

    def __init__(self, files: Sequence[ParquetFile], limits: Limits) -> None:
        self._files, self._limits = files, limits
        self._sides = [[_side(file, side) for side in _SIDES] for file in files]
        self.total: int | None = sum(file.rows for file in files)
        self.ignored_columns = tuple(
            dict.fromkeys(column.name for file in files for column in file.columns if column.holds_bytes)
        )

    def __iter__(self) -> Iterator[Item]:
        first, width = 0, None
        for file, sides in zip(self._files, self._sides, strict=True):
            others = [column.name for column in file.columns if not column.holds_bytes and column.name not in sides]
            columns = Columns(None, column_of(others, ("key", "uid")), column_of(others, ("caption", "text", "title")))
            in_file = 0
            for frame in parquet_vectors(file, self._limits, others, sides, width):
                width = width or frame.width
                described = []
                for at, values in enumerate(frame.rows):
                    row = self._described(file.name, in_file + at, first + at, values, columns)
                    if at in frame.bad and not isinstance(row, RejectedPair):
                        reason = f"row {in_file + at + 1} of {file.name}: {frame.bad[at]}"
                        row = RejectedPair(row[0], row[1], reason, Rejection.UNFIT_EMBEDDING)
                    described.append(row)
                yield from embedding_items(first, frame.image, frame.text, described)
                in_file += len(described)
                first += len(described)

    def _described(
        self, name: str, in_file: int, number: int, values: dict[str, object] | str, columns: Columns
    ) -> "Described | RejectedPair":
        number_in_file = in_file + 1
        if isinstance(values, str):
            return described_row(BadRow(name, number_in_file, None, values), number, columns, self._limits)
        return described_row(Row(name, number_in_file, None, values), number, columns, self._limits)


def has_embeddings(columns: Sequence[Column]) -> bool:
    """Whether both sides are there as lists of floats."""
    return all(_candidates(columns, side) for side in _SIDES)


def _side(file: ParquetFile, side: str) -> str:
    names = _candidates(file.columns, side)
    if len(names) == 1:
        return names[0]
    seen = ", ".join(f"{printable(column.name, 60)} ({column.type})" for column in file.columns[:50])
    if not names:
        raise UploadRefused(
            "missing_column", f"{file.name} has no column of {side} embeddings; its columns are: {seen}"
        )
    raise UploadRefused("ambiguous_upload", f"{file.name} has several columns of {side} embeddings: {', '.join(names)}")


def _candidates(columns: Sequence[Column], side: str) -> list[str]:
    vectors = [column.name for column in columns if column.vector]
    if side in vectors:
        return [side]
    return [name for name in vectors if name.lower().startswith(_SIDES[side])]


def _choose(_archive: Archive, contents: Contents, name: str) -> list[int]:
    return some(contents.parquet or contents.metadata, name, ".parquet file")


def _read(archive: Archive, _contents: Contents, chosen: list[int], _template: str) -> PairSource:
    """In the order of names, which is the order in which shards are numbered."""
    by_name = sorted(chosen, key=lambda at: by_number(archive.members.name(at)))
    limits = archive.limits
    files = [parquet_file(archive.members.name(at), partial(archive.extent, at), limits) for at in by_name]
    return _source(files, limits)


def _read_alone(name: str, file: IO[bytes], limits: Limits) -> PairSource:
    size = file.seek(0, 2)
    return _source([parquet_file(name, lambda: Extent(file, 0, size), limits)], limits)


def _source(files: list[ParquetFile], limits: Limits) -> PairSource:
    """Of images where the first file has a column of them, else of embeddings where it has those."""
    columns = files[0].columns
    if not has_images(columns) and has_embeddings(columns):
        return ParquetEmbeddings(files, limits)
    return ParquetPairs(files, limits)


def _settled(source: PairSource) -> str:
    return "parquet_embeddings" if isinstance(source, ParquetEmbeddings) else "parquet"


def _numbered(archive: Archive, contents: Contents) -> Iterator[str]:
    return map(archive.members.name, contents.parquet)


PARQUET = DatasetFormat(
    name="parquet",
    kind="images",
    precedence=50,
    fits=lambda _archive, contents: bool(contents.parquet) and not contents.images,
    choose=partial(_choose, name="parquet"),
    read=_read,
    read_alone=_read_alone,
    settled=_settled,
    numbered=_numbered,
    takes_images=False,
)
"""images inside the rows of parquet files"""

PARQUET_EMBEDDINGS = replace(
    PARQUET,
    name="parquet_embeddings",
    kind="embeddings",
    fits=lambda _archive, _contents: False,  # the files tell only when they are read: see `settled`
    choose=partial(_choose, name="parquet_embeddings"),
)
"""embeddings as columns of parquet files"""
