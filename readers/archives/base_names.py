"""Members of an archive found by their last name alone, wherever they lie."""

import posixpath
from array import array
from collections.abc import Iterable

from readers.archives.archive import Archive
from readers.archives.members import MemberIndex


class BaseNames:
    """Some members of an archive. Of two of one name the last is found, as of two of one path."""

    def __init__(self, archive: Archive, positions: Iterable[int]) -> None:
        self._index, self._positions = MemberIndex(archive.limits), array("Q")
        for position in positions:
            self._index.append(posixpath.basename(archive.members.name(position)))
            self._positions.append(position)

    def find(self, name: str) -> int | None:
        """The position of the member whose last name is that of `name`."""
        found = self._index.find(posixpath.basename(name.replace("\\", "/")))
        return None if found is None else self._positions[found]
