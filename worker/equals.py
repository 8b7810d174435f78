"""Which pairs of a dataset are equal in what: grouped by hash, the first of each group named."""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from store.states import DuplicateKind


@dataclass(frozen=True)
class Equal:
    """Groups of two or more, (n,) int64 each: the first position of the group, and a position in it, sorted."""

    first: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]

    @property
    def groups(self) -> int:
        return int((self.first == self.position).sum())

    def rows(self) -> Iterator[tuple[int, int]]:
        return zip(self.first.tolist(), self.position.tolist(), strict=True)


def find_equal(positions: npt.NDArray[np.int64], hashes: npt.NDArray[np.int64]) -> Equal:
    """Positions, ascending, whose hashes are equal. 64 bits: among ten million different things one chance in 10⁵."""
    order = np.argsort(hashes, kind="stable")
    ordered, positions = hashes[order], positions[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else order
    counts = np.diff(np.append(starts, len(ordered)))
    several = np.repeat(counts > 1, counts)
    first, position = np.repeat(positions[starts], counts)[several], positions[several]
    final = np.lexsort((position, first))
    return Equal(first[final], position[final])


@dataclass
class Fingerprints:
    """What each accepted pair is compared by: 17 to 33 bytes a pair."""

    positions: "array[int]" = field(default_factory=lambda: array("q"))
    further: bytearray = field(default_factory=bytearray)
    hashes: "dict[DuplicateKind, array[int]]" = field(default_factory=dict)

    def add(self, position: int, hashes: dict[DuplicateKind, int], *, further: bool = False) -> None:
        """A pair; `further` where its image came with an earlier caption, and is no duplicate for that."""
        self.positions.append(position)
        self.further.append(further)
        for kind, value in hashes.items():
            self.hashes.setdefault(kind, array("q")).append(value)

    def add_block(self, first: int, hashes: dict[DuplicateKind, npt.NDArray[np.int64]]) -> None:
        """Pairs at positions `first` and on, (n,) hashes of each kind."""
        count = len(next(iter(hashes.values())))
        self.positions.extend(range(first, first + count))
        self.further.extend(bytes(count))
        for kind, values in hashes.items():
            self.hashes.setdefault(kind, array("q")).frombytes(values.tobytes())

    def append(self, others: "Fingerprints", offset: int) -> None:
        """Those of a later shard, whose positions are counted from `offset`."""
        self.positions.frombytes((np.array(others.positions, dtype=np.int64) + offset).tobytes())
        self.further += others.further
        for kind, values in others.hashes.items():
            self.hashes.setdefault(kind, array("q")).extend(values)

    def packed(self) -> bytes:
        """All of it, as `unpacked` reads it."""
        columns = [self.positions, *self.hashes.values()]
        head = json.dumps([len(self.positions), *(kind.value for kind in self.hashes)]).encode()
        return b"\n".join([head, b"".join([bytes(self.further), *(column.tobytes() for column in columns)])])

    @classmethod
    def unpacked(cls, content: bytes) -> "Fingerprints":
        head, _, rest = content.partition(b"\n")
        count, *kinds = json.loads(head)
        columns = [array("q", rest[count * (1 + 8 * n) : count * (9 + 8 * n)]) for n in range(len(kinds) + 1)]
        return cls(columns[0], bytearray(rest[:count]), dict(zip(map(DuplicateKind, kinds), columns[1:], strict=True)))

    def equal(self) -> dict[DuplicateKind, Equal]:
        """The groups of every kind that was told."""
        positions = np.array(self.positions, dtype=np.int64)
        own_image = np.frombuffer(bytes(self.further), dtype=np.uint8) == 0
        found: dict[DuplicateKind, Equal] = {}
        for kind, values in self.hashes.items():
            hashes = np.array(values, dtype=np.int64)
            if kind is DuplicateKind.CAPTION:
                found[kind] = find_equal(positions, hashes)
            else:
                found[kind] = find_equal(positions[own_image], hashes[own_image])
        return found
