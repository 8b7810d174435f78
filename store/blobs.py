"""Large things by name, in a local folder or any object store, through obstore.

Names start with their owner (`datasets/<id>/…`, `jobs/<id>/…`), so that deleting an owner deletes a prefix and no
reference is ever counted (docs/decisions/0003-blob-names.md). A put is atomic: a blob is whole or absent. Only what a
client sends in pieces grows, and nobody reads that before it is whole.
"""

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, from_url

from store.settings import Settings

_STAGING = ".staging"
_FILE_PIECE_BYTES = 4 * 1024 * 1024
_OBJECT_PIECE_BYTES = 16 * 1024 * 1024


class Blobs:
    """A store of named, immutable byte strings."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.written: dict[str, int] | None = None
        self._root: Path | None = None
        self._store: Any
        if parts.scheme == "file":
            self._root = Path(unquote(parts.path))
            self._root.mkdir(parents=True, exist_ok=True)
            self._store = LocalStore(self._root)
        else:
            self._store = from_url(url)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Blobs":
        return cls(settings.blob_url)

    def put(self, name: str, content: bytes | memoryview | IO[bytes] | Path) -> None:
        """Keep `content` under `name`, replacing what was there."""
        if self.written is not None:
            self.written[name] = _size(content)
        obstore.put(self._store, name, content)

    def counted(self) -> "Blobs":
        """The same store, for one piece of work: its `written` has the bytes of each blob that was put, by name."""
        view = copy(self)
        view.written = {}
        return view

    def get(self, name: str) -> bytes:
        """The whole blob.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        return bytes(obstore.get(self._store, name).bytes())

    def exists(self, name: str) -> bool:
        """Whether there is a blob of that name."""
        try:
            obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        if length == 0:
            return b""
        return bytes(obstore.get_range(self._store, name, start=offset, length=length))

    def get_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Each `(offset, length)` of one blob, neighbours fetched together.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        starts, lengths = [start for start, _ in ranges], [length for _, length in ranges]
        return [bytes(piece) for piece in obstore.get_ranges(self._store, name, starts=starts, lengths=lengths)]

    def stream(self, name: str) -> Iterator[bytes]:
        """The blob in pieces of bounded size.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        try:
            blob = obstore.get(self._store, name)
        except FileNotFoundError:
            yield from self._pieces(name)
            return
        for chunk in blob.stream(min_chunk_size=1024 * 1024):
            yield bytes(chunk)

    @property
    def piece_bytes(self) -> int:
        """How much of a growing blob to put at a time: an object of its own where there is no file to write on."""
        return _FILE_PIECE_BYTES if self._root is not None else _OBJECT_PIECE_BYTES

    def put_piece(self, name: str, start: int, content: bytes) -> None:
        """Go on with a growing blob at byte `start`; what was there from there on is forgotten. It is on disk when
        this returns. `stream`, `open` and `local_path` read the whole.

        Raises:
            OSError: the disk is full, or what came before `start` is not there any more. The blob is as before.
        """
        if self._root is None:
            self.put(f"{name}.pieces/{start:020d}", content)
            return
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(file).st_size < start:
                raise OSError(errno.EIO, f"{path} has lost bytes that were acknowledged")
            os.ftruncate(file, start)
            try:
                _write_at(file, start, content)
                os.fsync(file)
            except OSError:
                os.ftruncate(file, start)  # a full disk gets back what it could not keep
                raise
            if start == 0:
                _sync_folders(path.parent, self._root)
        finally:
            os.close(file)

    def _pieces(self, name: str) -> Iterator[bytes]:
        """A grown blob of an object store. A piece that does not begin where the one before it ends was given up."""
        at = 0
        while True:
            try:
                piece = self.get(f"{name}.pieces/{at:020d}")
            except FileNotFoundError:
                if at == 0:
                    raise
                return
            yield piece
            at += len(piece)

    def open(self, name: str) -> IO[bytes]:
        """A seekable reader of the blob. A local folder gives the file itself; an object store is copied first."""
        if self._root is not None:
            return (self._root / name).open("rb")
        copy = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
        for chunk in self.stream(name):
            copy.write(chunk)
        copy.seek(0)
        return copy

    @contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        """A path to read the blob at while the block lasts."""
        if self._root is not None:
            yield self._root / name
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name  # some readers go by the suffix
            with path.open("wb") as file:
                for chunk in self.stream(name):
                    file.write(chunk)
            yield path

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder for files on their way in, on the disk where a local blob will lie."""
        parent = None
        if self._root is not None:
            parent = self._root / _STAGING
            parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            yield Path(folder)

    def adopt(self, path: Path, name: str) -> None:
        """Turn a finished file, made under `staging`, into the blob `name`, without a copy where the disk is ours."""
        if self._root is not None:
            target = self._root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        else:
            self.put(name, path)

    def list(self, folder: str) -> Iterator[tuple[str, datetime]]:
        """Every blob in a folder with the time when it was written."""
        for batch in obstore.list(self._store, prefix=folder):
            for entry in batch:
                yield entry["path"], entry["last_modified"]

    def delete(self, name: str) -> None:
        """Delete one blob, if it is there."""
        with suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def clear_staging(self, age: timedelta) -> None:
        """Delete the files of `staging` blocks that a crash left open; none was written to for as long as `age`."""
        latest = (datetime.now(UTC) - age).timestamp()
        for folder in (self._root / _STAGING).glob("*") if self._root is not None else ():
            with suppress(FileNotFoundError):  # its block has come to its end
                if max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) < latest:
                    shutil.rmtree(folder, ignore_errors=True)

    def delete_prefix(self, prefix: str) -> None:
        """Delete every blob whose name starts with the folder `prefix`."""
        for batch in obstore.list(self._store, prefix=prefix):
            obstore.delete(self._store, [entry["path"] for entry in batch])
        if self._root is not None:
            shutil.rmtree(self._root / prefix, ignore_errors=True)


def _size(content: bytes | memoryview | IO[bytes] | Path) -> int:
    if isinstance(content, Path):
        return content.stat().st_size
    if isinstance(content, bytes):
        return len(content)
    if isinstance(content, memoryview):
        return content.nbytes
    at = content.tell()
    size = content.seek(0, io.SEEK_END)
    content.seek(at)
    return size


def _write_at(file: int, start: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, start)
        start, rest = start + written, rest[written:]


def _sync_folders(folder: Path, root: Path) -> None:
    """A new file is there after a power cut only if the folders that name it were written too."""
    for path in (folder, *folder.parents):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path == root:
            return
