"""What a format is: how it is recognised among the files of an archive, which of them it takes, and its reader."""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO

from readers.archives.archive import Archive
from readers.archives.decompression import compression_of
from readers.archives.members import suffix
from readers.limits import Limits
from readers.pairs import Kind, PairSource
from readers.refusals import UploadRefused
from readers.tables.metadata import TABLE_SUFFIXES

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
CAPTION_SUFFIXES = frozenset({".txt", ".json"})
_CROISSANTS = frozenset({"croissant.json"})
_MOST_SUFFIXES = 1000
_FIRST_CAPTIONS = 1000


@dataclass(slots=True)
class Contents:
    """Positions of the files of an archive that decide how it is read, and counts of the others."""

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


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """One format. `name` is that of the API; where several formats fit, that of the lowest `precedence` is taken."""

    name: str
    kind: Kind
    precedence: int
    fits: Callable[[Archive, Contents], bool]
    """whether an archive with these files is of this format"""
    choose: Callable[[Archive, Contents], list[int]]
    """positions of the files that say what the pairs are; it refuses an archive without them, which may have been
    called this format"""
    read: Callable[[Archive, Contents, list[int], str], PairSource]
    """the reader, of an archive and what `choose` gave; the text is the template of captions"""
    read_alone: Callable[[str, IO[bytes], Limits], PairSource] | None = None
    """the reader of one file in no archive, by its name"""
    settled: Callable[[PairSource], str] | None = None
    """the name of the format, where two look alike until they are read"""
    numbered: Callable[[Archive, Contents], Iterable[str]] = lambda _archive, _contents: ()
    """names of a set of which some may be missing"""
    complete: bool = False
    """whether nothing else in the archive belongs to the dataset"""
    takes_images: bool = True
    """whether images in the archive are taken"""
    takes_captions: bool = False
    """whether captions beside images are taken"""
    repeated: Callable[[str], bool] = lambda _name: False
    """whether a file of this name only says again what is read elsewhere"""


def survey(archive: Archive) -> Contents:
    """Look at every name once."""
    contents = Contents()
    listed = {
        ".csv": contents.tables,
        ".tsv": contents.tables,
        ".parquet": contents.parquet,
        ".safetensors": contents.safetensors,
        ".tar": contents.tars,
    }
    by_name = {"image.npy": contents.image_npy, "text.npy": contents.text_npy}
    by_name |= dict.fromkeys((f"metadata{kind}" for kind in TABLE_SUFFIXES), contents.metadata)
    for position, name in enumerate(archive.members):
        kind = suffix(name)
        if len(contents.suffixes) < _MOST_SUFFIXES or kind in contents.suffixes:
            contents.suffixes[kind] += 1
        if kind in IMAGE_SUFFIXES:
            contents.images += 1
        elif kind in CAPTION_SUFFIXES:
            contents.captions += 1
            if posixpath.basename(name).lower() in _CROISSANTS:
                contents.croissants.append(position)
            if len(contents.first_captions) < _FIRST_CAPTIONS:
                contents.first_captions.append(position)
        else:
            positions = by_name.get(posixpath.basename(name).lower(), listed.get(kind))
            positions = contents.tars if positions is None and compression_of(name) else positions
            if positions is not None:
                positions.append(position)
    return contents


def is_image(name: str) -> bool:
    """Whether a name says that it is an image of a format that is read."""
    return suffix(name) in IMAGE_SUFFIXES


def captions_beside(archive: Archive, contents: Contents) -> bool:
    """Whether one of the first captions lies beside an image of its name."""
    for position in contents.first_captions:
        folder, slash, base = archive.members.name(position).rpartition("/")
        stem = folder + slash + base.partition(".")[0]
        if any(archive.members.find(stem + kind) is not None for kind in IMAGE_SUFFIXES):
            return True
    return False


def some(positions: list[int], name: str, wanted: str) -> list[int]:
    """`positions`, of which there are some in an archive that is of the format `name`."""
    if not positions:
        raise not_of_format(name, f"the archive holds no {wanted}")
    return positions


def only(archive: Archive, positions: list[int]) -> int:
    """The only one of `positions`."""
    if len(positions) > 1:
        names = " and ".join(archive.members.name(position) for position in positions[:2])
        raise UploadRefused("ambiguous_upload", f"the archive holds {names}; keep one of them")
    return positions[0]


def not_of_format(name: str, why: str) -> UploadRefused:
    """For an upload that is not what it was called."""
    return UploadRefused("unknown_format", f"this upload cannot be read as {name}: {why}", "format")
