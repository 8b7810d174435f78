"""A download that is not whole yet: beside its target, its name says of which version of the file it is a part."""

import os
import re
from pathlib import Path

from ecif_client.errors import UsageError

_ETAG = re.compile(r'"([0-9a-f]{16,64})"')  # as the service makes them; others are not fit for a name


class PartFile:
    """The bytes that have come of a file so far. They stay for the next call if this one is stopped."""

    def __init__(self, into: Path) -> None:
        if into.is_dir():
            raise UsageError(f"{into} is a folder: name a file")
        if not into.absolute().parent.is_dir():
            raise UsageError(f"{into.parent}: no such folder")
        self._into = into
        self._path: Path | None = None
        self._etag: str | None = None
        for path in sorted(into.absolute().parent.glob("*.part")):
            middle = path.name.removeprefix(f"{into.name}.").removesuffix(".part")
            if path.name == f"{into.name}.{middle}.part" and _ETAG.fullmatch(f'"{middle}"'):
                self._path, self._etag = path, middle

    @property
    def size(self) -> int:
        return self._path.stat().st_size if self._path is not None and self._path.exists() else 0

    @property
    def wanted(self) -> dict[str, str]:
        """The headers that ask for the rest, if it is still the same file; with the last byte that is here, as there is
        always that one to be sent."""
        if self._etag is None or not self.size:
            return {}
        return {"Range": f"bytes={self.size - 1}-", "If-Range": f'"{self._etag}"'}

    def begin(self, etag: str | None) -> None:
        """Begin anew, with a version that may be another one."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        known = _ETAG.fullmatch(etag or "")
        self._etag = known[1] if known else None
        self._path = self._into.with_name(
            f"{self._into.name}.{self._etag}.part" if known else f"{self._into.name}.part"
        )
        self._path.write_bytes(b"")

    def go_on(self, at: int) -> None:
        """Keep what comes before this byte."""
        assert self._path is not None  # noqa: S101  begun
        os.truncate(self._path, at)

    def append(self, piece: bytes) -> None:
        assert self._path is not None  # noqa: S101  begun
        with self._path.open("ab") as file:
            file.write(piece)

    def finish(self) -> int:
        """Put it in its place; return its size in bytes."""
        assert self._path is not None  # noqa: S101  begun
        self._path.replace(self._into)
        return self._into.stat().st_size
