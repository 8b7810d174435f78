"""The names in an archive by position, by name and by last name, at about 40 bytes a member beside the name itself."""

import posixpath
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from readers.limits import Limits
from readers.printable import printable
from readers.refusals import UploadRefused

_NORMAL_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
_DESKTOP_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


class MemberIndex:
    """Names of members in archive order. Names are only ever looked up here; nothing is written under them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._text = bytearray()
        self._ends = array("Q")
        self._hashes = array("q")
        self._order: npt.NDArray[np.int64] | None = None
        self._sorted: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        return map(self.name, range(len(self)))

    def append(self, name: str) -> None:
        """Add a member. `name` has been through `plain_name`."""
        raw = name.encode("utf-8", "surrogateescape")
        if len(raw) > self.limits.max_name_bytes:
            raise UploadRefused("unsafe_member", f"a member's name is too long: {printable(name, 100)}")
        self._text += raw
        self._ends.append(len(self._text))
        self._hashes.append(hash(raw))
        if len(self._text) + 40 * len(self._ends) > self.limits.max_index_bytes:
            raise UploadRefused("too_many_members", "the names in the archive take too much memory")

    def name(self, position: int) -> str:
        """The name of the member at `position`."""
        return self._raw(position).decode("utf-8", "surrogateescape")

    def find(self, name: str) -> int | None:
        """Where `name` is: its last member, as extraction would leave it. macOS's decomposed accents are tried."""
        if len(name) > self.limits.max_name_bytes:  # normalising takes the square of a hostile name's length
            return None
        forms = [name] if name.isascii() else [name, *(unicodedata.normalize(form, name) for form in _NORMAL_FORMS)]
        for form in dict.fromkeys(forms):
            position = self._find(form.encode("utf-8", "surrogatepass"))
            if position is not None:
                return position
        return None

    def _find(self, raw: bytes) -> int | None:
        if self._order is None or self._sorted is None or len(self._order) != len(self):
            hashes = np.array(self._hashes, dtype=np.int64)
            self._order = np.argsort(hashes, kind="stable")
            self._sorted = hashes[self._order]
        at = int(np.searchsorted(self._sorted, hash(raw), side="right")) - 1
        while at >= 0 and self._sorted[at] == hash(raw):
            position = int(self._order[at])
            if self._raw(position) == raw:
                return position
            at -= 1
        return None

    def _raw(self, position: int) -> bytes:
        start = self._ends[position - 1] if position else 0
        return bytes(self._text[start : self._ends[position]])


def plain_name(name: str) -> str | None:
    """`name` without its leading `./`; None for a folder, a desktop's own files, and names that point outside."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    parts = name.split("/")
    if not name or name.endswith("/") or name.startswith("/") or ".." in parts:
        return None
    if "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] in _DESKTOP_FILES:
        return None
    return name


def suffix(name: str) -> str:
    """The last suffix of a name in lower case, with its dot, or nothing."""
    return posixpath.splitext(name)[1].lower()


class BaseNames:
    """Some members of an archive. Of two of one name the last is found, as of two of one path."""

    def __init__(self, members: MemberIndex, positions: Iterable[int]) -> None:
        self._index, self._positions = MemberIndex(members.limits), array("Q")
        for position in positions:
            self._index.append(posixpath.basename(members.name(position)))
            self._positions.append(position)

    def find(self, name: str) -> int | None:
        """The position of the member whose last name is that of `name`."""
        at = self._index.find(posixpath.basename(name.replace("\\", "/")))
        return None if at is None else self._positions[at]
