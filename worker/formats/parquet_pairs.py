"""Hugging Face and img2dataset parquet: the image inside the row, as `{bytes, path}` or as plain bytes."""

from collections.abc import Callable, Iterator, Sequence
from typing import final

from worker.formats.byte_range import Extent, Spent
from worker.formats.limits import Limits
from worker.formats.pair_text import caption_from, extra_from, key_from, shown
from worker.formats.pairs import ImagePair, Item, RejectedPair
from worker.formats.parquet_process import Column, ParquetRow, described, parquet_rows
from worker.formats.printable import printable
from worker.formats.refusals import PairRefused, UploadRefused
from worker.formats.rows import place
from worker.formats.tables import first_caption_column
from worker.formats.unique_keys import UniqueKeys

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
Locate = Callable[[], Extent]


@final
class ParquetPairs:
    """Pairs in the order of the files and their rows. The key is `key`, else the image's path, else the row's number.

    Row numbers count from 0 over all files.
    """

    unreferenced = 0

    def __init__(self, files: Sequence[tuple[str, Locate]], limits: Limits) -> None:
        self._limits = limits
        self._files: list[tuple[str, Locate, list[str], str, str]] = []
        self.total: int | None = 0
        ignored: dict[str, None] = {}
        for name, locate in files:
            with locate() as extent:
                rows, columns = described(name, extent, limits)
            self.total += rows
            image, caption = _image_column(name, columns), _caption_column(name, columns)
            wanted = [column.name for column in columns if not column.holds_bytes or column.name == image]
            ignored |= dict.fromkeys(column.name for column in columns if column.name not in wanted)
            self._files.append((name, locate, wanted, image, caption))
        self.ignored_columns = tuple(ignored)

    def __iter__(self) -> Iterator[Item]:
        keys = UniqueKeys()
        spent = Spent(self._limits)
        number = 0
        for name, locate, wanted, image, caption in self._files:
            with locate() as extent:
                rows = parquet_rows(name, extent, self._limits, wanted, image)
                for row_number, row in enumerate(rows, start=1):
                    spent.add(len(row.image))
                    yield self._pair(row, caption, place(name, row_number, None), number, keys)
                    number += 1

    def _pair(
        self, row: ParquetRow, caption: str, where: str, number: int, keys: UniqueKeys
    ) -> ImagePair | RejectedPair:
        if isinstance(row.values, str):
            return RejectedPair(None, None, f"{where}: {row.values}")
        limits, said = self._limits, row.values[caption]
        key = row.values.get("key")
        if key is None:
            key = row.path or str(number)
        try:
            pair = ImagePair(
                key_from(key, limits),
                caption_from(said, limits),
                self._image(row),
                extra_from(row.values, {caption, "key"}, limits),
            )
        except PairRefused as error:
            return RejectedPair(shown(key, limits), shown(said, limits), f"{where}: {error}")
        return ImagePair(keys.claim(pair.key), pair.caption, pair.image, pair.extra)

    def _image(self, row: ParquetRow) -> bytes:
        if row.size is None:
            raise PairRefused(f"only the path of an image ({row.path}), not its bytes" if row.path else "no image")
        if row.size > self._limits.max_member_bytes:
            raise PairRefused(f"the image has {row.size} bytes; {self._limits.max_member_bytes} is the most")
        return row.image


def _image_column(name: str, columns: list[Column]) -> str:
    structs = [column.name for column in columns if column.image == "struct"]
    plain = [column.name for column in columns if column.image == "plain" and column.name in _IMAGE_NAMES]
    candidates = structs + plain
    named = [column for column in _IMAGE_NAMES if column in candidates]
    if not candidates:
        raise _missing(name, "of images (a struct of bytes and path, or bytes named image)", columns)
    return (named + candidates)[0]


def _caption_column(name: str, columns: list[Column]) -> str:
    caption = first_caption_column(tuple(column.name for column in columns if not column.holds_bytes))
    if caption is None:
        raise _missing(name, "caption or text", columns)
    return caption


def _missing(name: str, wanted: str, columns: list[Column]) -> UploadRefused:
    seen = ", ".join(f"{printable(column.name, 60)} ({column.type})" for column in columns[:50])
    return UploadRefused("missing_column", f"{name} has no column {wanted}; its columns are: {seen}")
