"""What kinds of file an archive holds."""

import posixpath
from collections import Counter
from dataclasses import dataclass, field

from readers.archives.archive import Archive
from readers.archives.decompression import compression_of
from readers.archives.members import suffix
from readers.tables.metadata import TABLE_SUFFIXES

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
CAPTION_SUFFIXES = frozenset({".txt", ".json"})
CROISSANTS = frozenset({"croissant.json"})
_MOST_SUFFIXES = 1000
_FIRST_CAPTIONS = 1000


@dataclass(slots=True)
class Contents:
    """Positions of the files that decide how an archive is read, and counts of the others."""

    metadata: list[int] = field(default_factory=list)
    tables: list[int] = field(default_factory=list)
    """`.csv` and `.tsv` of other names"""
    parquet: list[int] = field(default_factory=list)
    """of other names than `metadata.parquet`"""
    safetensors: list[int] = field(default_factory=list)
    tars: list[int] = field(default_factory=list)
    image_npy: list[int] = field(default_factory=list)
    text_npy: list[int] = field(default_factory=list)
    croissants: list[int] = field(default_factory=list)
    images: int = 0
    captions: int = 0
    first_captions: list[int] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)

    @property
    def only_shards(self) -> bool:
        """Whether it is a folder of tars; img2dataset lays tables beside them."""
        others = self.images or self.metadata or self.safetensors or (self.image_npy and self.text_npy)
        return bool(self.tars) and not others

    def described(self) -> str:
        """The commonest kinds of file, for people."""
        seen = ", ".join(f"{count} {kind or 'without suffix'}" for kind, count in self.suffixes.most_common(5))
        return seen or "no files"


def survey(archive: Archive) -> Contents:
    """Look at every name once."""
    found = Contents()
    listed = {
        ".csv": found.tables,
        ".tsv": found.tables,
        ".parquet": found.parquet,
        ".safetensors": found.safetensors,
        ".tar": found.tars,
    }
    by_name = {"image.npy": found.image_npy, "text.npy": found.text_npy}
    by_name |= dict.fromkeys((f"metadata{kind}" for kind in TABLE_SUFFIXES), found.metadata)
    for position, name in enumerate(archive.members):
        kind = suffix(name)
        if len(found.suffixes) < _MOST_SUFFIXES or kind in found.suffixes:
            found.suffixes[kind] += 1
        if kind in IMAGE_SUFFIXES:
            found.images += 1
        elif kind in CAPTION_SUFFIXES:
            found.captions += 1
            if posixpath.basename(name).lower() in CROISSANTS:
                found.croissants.append(position)
            if len(found.first_captions) < _FIRST_CAPTIONS:
                found.first_captions.append(position)
        else:
            positions = by_name.get(posixpath.basename(name).lower(), listed.get(kind))
            positions = found.tars if positions is None and compression_of(name) else positions
            if positions is not None:
                positions.append(position)
    return found


def is_image(name: str) -> bool:
    """Whether a name says that it is an image of a format that is read."""
    return suffix(name) in IMAGE_SUFFIXES
