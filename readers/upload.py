"""The door of this room: an upload, opened and recognised."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self, final

from readers.formats.embeddings import Embeddings
from readers.formats.image_folder import DEFAULT_TEMPLATE
from readers.formats.registry import named_format, opened
from readers.limits import Limits
from readers.pairs import EmbeddingBlock, ImagePair, Item, Kind
from readers.refusals import UploadRefused, damage_refused
from readers.unique_keys import UniqueKeys


@final
class UploadReader:
    """An upload, opened and recognised. Iterate as often as needed, from one thread; close it after.

    `caption_template` makes the captions of a folder of classes, the class for its `{label}`. `missing_shards` names
    the gaps in a set of numbered archives; `left_out` counts, by kind, files of formats that it was not read as.
    Opening and iterating raise `UploadRefused` when the upload as a whole is no good, which may be found out late.
    An `OSError` is about this machine's disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        filename: str | None = None,
        format: str | None = None,  # noqa: A002  the contract's own name
        limits: Limits | None = None,
        caption_template: str = DEFAULT_TEMPLATE,
    ) -> None:
        self._limits = limits or Limits()
        with ExitStack() as files, damage_refused():
            requested = named_format(format) if format is not None else None
            upload = opened(path, filename, requested, self._limits, caption_template, files)
            self._files = files.pop_all()
        self._keys = UniqueKeys()
        self.format, self._source, self._archive = upload.format, upload.source, upload.archive
        self.missing_shards, self.left_out = upload.missing_shards, upload.left_out

    @property
    def kind(self) -> Kind:
        return self.format.kind

    @property
    def total(self) -> int | None:
        """How many pairs there will be, where the format says so (for progress)."""
        return self._source.total

    @property
    def unreferenced(self) -> int:
        """Images in the archive that no row named; final once the iteration has ended."""
        return self._source.unreferenced

    @property
    def ignored_columns(self) -> tuple[str, ...]:
        """Columns of bytes that `extra` cannot carry."""
        return self._source.ignored_columns

    @property
    def repeated_keys(self) -> int:
        """Keys given more than once so far, by pairs that are not further captions of one image."""
        return self._keys.repeated

    @property
    def first_repeated_key(self) -> str | None:
        """The first of them."""
        return self._keys.first_repeated

    @property
    def block_rows(self) -> int:
        """Rows of embeddings in a block, where `between` can begin at any of them; else 0."""
        return self._source.block_rows if isinstance(self._source, Embeddings) else 0

    @property
    def listable(self) -> bool:
        """Whether its images can be read later, out of the upload, from what `listed` says."""
        return self._source.listable and self._archive is not None and self._archive.in_upload

    def listed(self) -> Iterator[Item]:
        """Everything but the images: each `ImagePair` has its `member` instead. For what is `listable`."""
        assert self._archive is not None  # noqa: S101  see `listable`
        self._archive.listing = True
        try:
            yield from self
        finally:
            self._archive.listing = False

    def between(self, first: int, last: int) -> Iterator[Item]:
        """The rows of embeddings from `first`, a multiple of `block_rows`, to just before `last`."""
        assert isinstance(self._source, Embeddings)  # noqa: S101  see `block_rows`
        with damage_refused():
            yield from self._source.between(first, last)

    def __iter__(self) -> Iterator[Item]:
        self._keys = UniqueKeys()
        with damage_refused():
            for count, item in enumerate(self._source, start=1):
                if count > self._limits.max_rows:
                    raise UploadRefused("too_many_rows", f"there are more than {self._limits.max_rows} rows")
                yield self._unique(item)

    def _unique(self, item: Item) -> Item:
        if isinstance(item, ImagePair):
            key = self._keys.claim(item.key, expected=item.further)
            return item if key == item.key else replace(item, key=key)
        if isinstance(item, EmbeddingBlock) and not item.numbered:
            item.keys[:] = map(self._keys.claim, item.keys)
        return item

    def close(self) -> None:
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
