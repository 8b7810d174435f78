"""Hugging Face and img2dataset parquet: the image inside the row, as `{bytes, path}` or as plain bytes."""

from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, final

import pyarrow as pa

from worker.formats.limits import Limits
from worker.formats.pair_text import caption_from, extra_from, key_from, shown
from worker.formats.pairs import ImagePair, Item, RejectedPair
from worker.formats.parquet_batches import binary_columns, open_parquet, row_batches
from worker.formats.printable import printable
from worker.formats.refusals import PairRefused, UploadRefused
from worker.formats.rows import place
from worker.formats.tables import first_caption_column
from worker.formats.unique_keys import UniqueKeys

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
Opener = Callable[[], IO[bytes]]


@final
class ParquetPairs:
    """Pairs in the order of the files and their rows. The key is `key`, else the image's path, else the row's number.

    Row numbers count from 0 over all files.
    """

    unreferenced = 0

    def __init__(self, files: Sequence[tuple[str, Opener]], limits: Limits) -> None:
        self._files, self._limits = files, limits
        self.total: int | None = 0
        ignored: dict[str, None] = {}
        for name, opener in files:
            with opener() as stream, open_parquet(name, stream, limits) as file:
                self.total += file.metadata.num_rows
                image, _ = _columns(name, file.schema_arrow)
                ignored |= dict.fromkeys(c for c in binary_columns(file.schema_arrow) if c != image)
        self.ignored_columns = tuple(ignored)

    def __iter__(self) -> Iterator[Item]:
        keys = UniqueKeys()
        before = 0
        for name, opener in self._files:
            with opener() as stream, open_parquet(name, stream, self._limits) as file:
                image, caption = _columns(name, file.schema_arrow)
                skipped = set(binary_columns(file.schema_arrow)) - {image}
                wanted = [column for column in file.schema_arrow.names if column not in skipped]
                number = 0
                for batch in row_batches(file, wanted, self._limits):
                    for values in batch:
                        number += 1
                        where = place(name, number, None)
                        if isinstance(values, str):
                            yield RejectedPair(None, None, f"{where}: {values}")
                        else:
                            yield self._pair(values, image, caption, where, before + number - 1, keys)
                before += number

    def _pair(
        self, values: dict[str, Any], image: str, caption: str, where: str, number: int, keys: UniqueKeys
    ) -> ImagePair | RejectedPair:
        limits, cell, said = self._limits, values[image], values[caption]
        path = cell.get("path") if isinstance(cell, dict) else None
        key = values.get("key")
        if key is None:
            key = path or str(number)
        try:
            pair = ImagePair(
                key_from(key, limits),
                caption_from(said, limits),
                self._image(cell, path),
                extra_from(values, {image, caption, "key"}, limits),
            )
        except PairRefused as error:
            return RejectedPair(shown(key, limits), shown(said, limits), f"{where}: {error}")
        return ImagePair(keys.claim(pair.key), pair.caption, pair.image, pair.extra)

    def _image(self, cell: Any, path: object) -> bytes:
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes) or not content:
            raise PairRefused(f"only the path of an image ({path}), not its bytes" if path else "no image")
        if len(content) > self._limits.max_member_bytes:
            raise PairRefused(f"the image has {len(content)} bytes; {self._limits.max_member_bytes} is the most")
        return content


def _columns(name: str, schema: pa.Schema) -> tuple[str, str]:
    """The column of images and that of captions."""
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    plain = [f.name for f in schema if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)]
    candidates = structs + [column for column in plain if column in _IMAGE_NAMES]
    named = [column for column in _IMAGE_NAMES if column in candidates]
    seen = ", ".join(f"{printable(f.name, 60)} ({f.type})" for f in list(schema)[:50])
    image = next(iter(named + candidates), None)
    if image is None:
        wanted = "a struct of bytes and path, or bytes named image"
        raise UploadRefused("missing_column", f"{name} has no column of images ({wanted}); its columns are: {seen}")
    caption = first_caption_column(tuple(schema.names))
    if caption is None:
        raise UploadRefused("missing_column", f"{name} has no column caption or text; its columns are: {seen}")
    return image, caption
