"""What a reader gives out: pairs as they came, pairs turned away, and blocks of embeddings."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from readers.archives.member_bytes import StoredMember
from readers.matrices.matrix import Placement
from readers.printable import printable
from readers.refusals import Rejection

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Kind = Literal["images", "embeddings"]


class Sample(NamedTuple):
    """A sample of a webdataset: its tar, as the upload names it ("" where the upload is the tar), and `__key__`."""

    shard: str
    key: str


@dataclass(frozen=True, slots=True)
class ImagePair:
    """A pair as it came. `image` is not decoded yet; `extra` holds every other column of its row, `label` too.

    `further` marks the second and later captions of one image, which share its key until keys are made unique. `where`
    names its row. One that is only listed has no `image`, but the `member` that is to be read. `sample` is what
    webdataset calls it.
    """

    key: str
    caption: str
    image: bytes
    extra: dict[str, Json]
    further: bool = False
    where: str = field(default="", compare=False)
    member: StoredMember | None = None
    sample: Sample | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class RejectedPair:
    """A pair that cannot be used. `reason` names its row, line or file; `key` is as given, so it may repeat.

    All three can be stored as they are: no NUL, no lone surrogates, no great length.
    """

    key: str | None
    caption: str | None
    reason: str
    rejection: Rejection = Rejection.UNREADABLE_ROW

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", printable(self.reason, most=1000))


@dataclass(frozen=True, slots=True)
class EmbeddingBlock:
    """Rows of embeddings in upload order, without those rejected.

    `first_row` is the upload's row (from 0) at which the block begins. `keys`, `captions` and `extras` have n entries;
    `image` and `text` are (n, E) float32, finite, not normalised; a row may be zeros. `numbered`: the keys are the
    numbers of the rows, and nothing else came with them. `placement`: the upload holds the matrices as they are, and
    these are their `rows`, (n,).
    """

    first_row: int
    keys: list[str]
    captions: list[str | None]
    extras: list[dict[str, Json]]
    image: npt.NDArray[np.float32]
    text: npt.NDArray[np.float32]
    numbered: bool = False
    rows: npt.NDArray[np.int64] | None = None
    placement: Placement | None = None


Item = ImagePair | RejectedPair | EmbeddingBlock


class PairSource(Protocol):
    """One format's reader. Iterating again starts again."""

    @property
    def total(self) -> int | None:
        """How many pairs there will be, good and bad, where the format says so."""

    @property
    def listable(self) -> bool:
        """Whether its images are members of an archive, which can be read later out of the upload."""

    @property
    def unreferenced(self) -> int:
        """Images that no row named; known once the iteration has ended."""

    @property
    def ignored_columns(self) -> tuple[str, ...]:
        """Columns of bytes, which `extra` cannot carry."""

    def __iter__(self) -> Iterator[Item]: ...
