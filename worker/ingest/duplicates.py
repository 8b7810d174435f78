"""Which pairs of a dataset are equal in what: grouped by hash, the first of each group named."""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

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
        groups: dict[DuplicateKind, Equal] = {}
        for kind, values in self.hashes.items():
            hashes = np.array(values, dtype=np.int64)
            if kind is DuplicateKind.CAPTION:
                groups[kind] = find_equal(positions, hashes)
            else:
                groups[kind] = find_equal(positions[own_image], hashes[own_image])
        return groups


NEAR_COSINE = 0.99
"""From here on two embeddings are nearly equal."""

_WORDS = 4  # of 64 bits a code
_BITS = 64 * _WORDS
_FARTHEST = 25  # bits in which codes may differ: at the cosine above 11.5 are expected, with a deviation of 3.3
_ORDERS = range(0, _BITS, 16)  # the bits from which on codes are sorted
_NEIGHBOURS = 8  # looked at in each order
_ALL = 512  # up to so many rows each is compared with each
_CHECKED = 131_072  # candidates of an order, or a quarter of the rows, the closest by their codes
_BLOCK = 65_536  # candidates at least between two looks at what is joined by now, which goes over all rows
_ROWS = 4096  # pairs of rows held at once

Codes = npt.NDArray[np.uint64]
Rows = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def codes(rows: npt.NDArray[np.float32]) -> Codes:
    """The code of each row. (n, E) → (n, 4)."""
    signs = rows @ _directions(rows.shape[1]) > 0
    return np.packbits(signs, axis=1).view(">u8").astype(np.uint64)


def read_codes(contents: Iterable[bytes]) -> Codes:
    """The codes of several shards, from their bytes as they are in memory: (n, 4)."""
    return np.frombuffer(b"".join(contents), dtype=np.uint64).reshape(-1, _WORDS)


@lru_cache(maxsize=2)
def _directions(width: int) -> npt.NDArray[np.float32]:
    """(E, 256): the same in every process."""
    return np.random.default_rng(0).standard_normal((width, _BITS), dtype=np.float32)


def find_near(positions: npt.NDArray[np.int64], equal: Equal, of: Codes, rows: Rows) -> Equal:
    """Groups of rows that are equal, or nearly; who is near to one of a group belongs to it.

    Args:
        positions: (n,), ascending.
        equal: those that are equal, of which the first stands for all.
        of: (n, 4), from `codes`.
        rows: the embeddings at some of 0 … n-1, (m,) → (m, E).
    """
    stands_for = np.arange(len(positions))
    stands_for[np.searchsorted(positions, equal.position)] = np.searchsorted(positions, equal.first)
    alone, place = np.unique(stands_for, return_inverse=True)
    labels = np.arange(len(alone))
    size = max(_BLOCK, len(alone) // 16)
    for i, j in _candidates(of[alone]):
        left = max(_CHECKED, len(alone) // 4)
        for start in range(0, len(i), size):
            some, others = i[start : start + size], j[start : start + size]
            apart = np.flatnonzero(labels[some] != labels[others])[:left]
            some, others = some[apart], others[apart]
            left -= len(apart)
            near = _are_near(alone[some], alone[others], rows)
            labels = _joined(labels, some[near], others[near])
    return find_equal(positions, labels[place])


def _candidates(of: Codes) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Order by order pairs of rows whose codes are close, the closest first; each (m,)."""
    count = len(of)
    window, orders = (count - 1, _ORDERS[:1]) if count <= _ALL else (_NEIGHBOURS, _ORDERS)
    for bit in orders:
        key = _from_bit(of, bit)
        order = np.argsort(key)
        key, ordered = key[order], of[order]
        starts, stops, bits = [], [], []
        for distance in range(1, window + 1):
            start = np.flatnonzero(np.bitwise_count(key[distance:] ^ key[:-distance]) <= _FARTHEST)
            differing = np.bitwise_count(ordered[start] ^ ordered[start + distance]).sum(axis=1, dtype=np.uint8)
            close = differing <= _FARTHEST
            starts.append(start[close])
            stops.append(start[close] + distance)
            bits.append(differing[close])
        if starts:
            closest = np.argsort(np.concatenate(bits), kind="stable")
            yield order[np.concatenate(starts)[closest]], order[np.concatenate(stops)[closest]]


def _from_bit(of: Codes, bit: int) -> npt.NDArray[np.uint64]:
    """64 bits of each code from a place on, (n,)."""
    word, shift = divmod(bit, 64)
    if not shift:
        return of[:, word]
    further = of[:, (word + 1) % _WORDS]
    return (of[:, word] << np.uint64(shift)) | (further >> np.uint64(64 - shift))


def _are_near(i: npt.NDArray[np.int64], j: npt.NDArray[np.int64], rows: Rows) -> npt.NDArray[np.bool_]:
    """Whether the cosine of two rows is large enough; to a row of zeros nothing is near."""
    near = np.zeros(len(i), dtype=np.bool_)
    for start in range(0, len(i), _ROWS):
        some, others = (rows(which[start : start + _ROWS]).astype(np.float64) for which in (i, j))
        lengths = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
        products = np.einsum("ne,ne->n", some, others)
        near[start : start + _ROWS] = (lengths > 0) & (products >= NEAR_COSINE * lengths)
    return near


def _joined(labels: npt.NDArray[np.int64], i: npt.NDArray[np.int64], j: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Labels, (n,), each the least index of its group, when rows i and j, (m,), belong together."""
    while True:
        low, high = np.minimum(labels[i], labels[j]), np.maximum(labels[i], labels[j])
        if np.array_equal(low, high):
            return labels
        labels = labels.copy()
        np.minimum.at(labels, high, low)
        while not np.array_equal(further := labels[labels], labels):
            labels = further
