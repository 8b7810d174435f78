"""Keys that are given twice: the second becomes `key#2`, the third `key#3`."""

from array import array
from hashlib import blake2b


class UniqueKeys:
    """Remembers every key by 8 bytes of its BLAKE2b, in an open-addressed table: about 24 bytes a key.

    Two keys of equal digest (one chance in 10⁵ for ten million keys) cost one needless `#2`, the same on every run.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 << 10))
        self._used = 0
        self._repeats: dict[int, int] = {}
        self.repeated = 0
        """keys that were claimed again, unexpectedly"""
        self.first_repeated: str | None = None

    def claim(self, key: str, *, expected: bool = False) -> str:
        """`key`, or its first free variant when it has been claimed before; `expected` where that is no surprise."""
        digest = _digest(key)
        if self._add(digest):
            return key
        if not expected:
            self.repeated += 1
            self.first_repeated = self.first_repeated or key
        number = self._repeats.get(digest, 1)
        while True:
            number += 1
            variant = f"{key}#{number}"
            if self._add(_digest(variant)):
                self._repeats[digest] = number
                return variant

    def _add(self, digest: int) -> bool:
        slots, mask = self._slots, len(self._slots) - 1
        at = digest & mask
        while slots[at]:
            if slots[at] == digest:
                return False
            at = (at + 1) & mask
        slots[at] = digest
        self._used += 1
        if self._used * 3 > len(slots) * 2:
            self._grow()
        return True

    def _grow(self) -> None:
        old = self._slots
        slots = self._slots = array("Q", bytes(16 * len(old)))
        mask = len(slots) - 1
        for digest in old:
            if digest:
                at = digest & mask
                while slots[at]:
                    at = (at + 1) & mask
                slots[at] = digest


def _digest(key: str) -> int:
    """Never 0, which marks an empty slot."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") or 1
