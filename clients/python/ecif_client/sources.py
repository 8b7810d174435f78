"""What is uploaded, as bytes that can be read from any place: a file as it is, or several as one tar.

The tar is never written: its length follows from those of its files, so an upload of a folder can be taken up in the
middle too. Same files, same bytes: names in order, no times and no owners.
"""

import hashlib
import os
import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from ecif_client.errors import UsageError

READ_BYTES = 1 << 20
Seen = Callable[[int, int], None]
"""Is called with the bytes that are done, and those of the whole."""


class _Segment(NamedTuple):
    content: bytes | Path
    size: int


class Source:
    """Bytes to upload, and the file name that the service shall know them by."""

    def __init__(self, name: str, segments: list[_Segment]) -> None:
        self.name = name
        self._segments = [segment for segment in segments if segment.size]
        self._ends = list(accumulate(segment.size for segment in self._segments))
        self.size: int = self._ends[-1] if self._ends else 0

    @classmethod
    def of(cls, path: Path) -> "Source":
        """A file, or a folder as one tar.

        Raises:
            UsageError: it is neither, or holds nothing.
        """
        if path.is_dir():
            return cls.of_files(f"{path.resolve().name}.tar", _files_below(path))
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        if not path.is_file():
            raise UsageError(f"{path} is neither a file nor a folder")
        size = path.stat().st_size
        if size == 0:
            raise UsageError(f"{path} is empty")
        return cls(path.name, [_Segment(path, size)])

    @classmethod
    def of_files(cls, name: str, files: Mapping[str, Path]) -> "Source":
        """One tar of files under these names."""
        segments = []
        for member, path in sorted(files.items()):
            if not path.is_file():
                raise UsageError(f"{path}: no such file")
            size = path.stat().st_size
            described = tarfile.TarInfo(member)
            described.size = size
            header, padding = described.tobuf(tarfile.PAX_FORMAT), bytes(-size % tarfile.BLOCKSIZE)
            segments += [_Segment(header, len(header)), _Segment(path, size), _Segment(padding, len(padding))]
        end = bytes(2 * tarfile.BLOCKSIZE)
        return cls(name, [*segments, _Segment(end, len(end))])

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`, some at a time.

        Raises:
            UsageError: a file is not as long as it was.
        """
        index = bisect_right(self._ends, start)
        while start < stop:
            content, size = self._segments[index]
            first = start - (self._ends[index] - size)
            count = min(stop - start, size - first)
            if isinstance(content, bytes):
                yield content[first : first + count]
            else:
                yield from _read(content, first, count)
            start += count
            index += 1

    def digest(self) -> str:
        """`sha256:` and the digest of all bytes."""
        running = hashlib.sha256()
        for chunk in self.chunks(0, self.size):
            running.update(chunk)
        return "sha256:" + running.hexdigest()


def _read(path: Path, start: int, count: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while count:
            chunk = file.read(min(READ_BYTES, count))
            if not chunk:
                raise UsageError(f"{path} became shorter while it was read")
            yield chunk
            count -= len(chunk)


def _files_below(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its path in it; hidden ones are left out."""
    files = {}
    walked = set()  # links may lead back up
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(parent) in walked:
            folders.clear()
            continue
        walked.add(os.path.realpath(parent))
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                files[path.relative_to(folder).as_posix()] = path
    if not files:
        raise UsageError(f"{folder} holds no files")
    return files
