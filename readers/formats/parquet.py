"""Hugging Face and img2dataset parquet: the image inside the row, as `{bytes, path}` or as plain bytes."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import final

from readers.archives.byte_range import Spent
from readers.image_pairs import image_pairs
from readers.limits import Limits
from readers.pairs import ImagePair, Item, RejectedPair
from readers.printable import printable
from readers.refusals import PairRefused, Rejection, UploadRefused
from readers.tables.metadata import first_caption_column
from readers.tables.parquet import Column, ParquetFile, ParquetRow, parquet_rows
from readers.tables.rows import place

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
_URL_NAMES = ("url", "image_url", "image_link")


@final
class ParquetPairs:
    """Pairs in the order of the files and their rows. The key is `key`, else the image's path, else the row's number.

    Row numbers count from 0 over all files. `image` and `caption` name the columns, where a description tells.
    """

    unreferenced = 0

    def __init__(
        self, files: Sequence[ParquetFile], limits: Limits, *, image: str | None = None, caption: str | None = None
    ) -> None:
        self._limits = limits
        self._files: list[tuple[ParquetFile, list[str], str, str]] = []
        self.total: int | None = sum(file.rows for file in files)
        ignored: dict[str, None] = {}
        for file in files:
            columns = file.columns
            found = _checked(file, image) or _image_column(file.name, columns)
            said = _checked(file, caption) or _caption_column(file.name, columns)
            wanted = [column.name for column in columns if not column.holds_bytes or column.name == found]
            ignored |= dict.fromkeys(column.name for column in columns if column.name not in wanted)
            self._files.append((file, wanted, found, said))
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
