"""A compressed tar, unpacked to a temporary file so that its members can be read in any order."""

import bz2
import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, cast

import pyarrow as pa

from worker.formats.archives import copied_to_scratch
from worker.formats.limits import Limits
from worker.formats.refusals import UploadRefused


class _Capped:
    """A stream that refuses to give out more than the limits allow for a file of `packed` bytes."""

    def __init__(self, stream: Any, packed: int, limits: Limits) -> None:
        self._stream, self._packed, self._limits, self._out = stream, packed, limits, 0

    def read(self, count: int) -> bytes:
        data: bytes = self._stream.read(count)
        self._out += len(data)
        if self._out > self._limits.max_total_bytes:
            raise UploadRefused("too_large", f"the archive unpacks to more than {self._limits.max_total_bytes} bytes")
        if self._out > self._limits.ratio_floor_bytes and self._out > self._limits.max_ratio * self._packed:
            raise UploadRefused(
                "decompression_bomb", f"the archive unpacks to more than {self._limits.max_ratio} times its size"
            )
        return data

    def __enter__(self) -> "_Capped":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


OPENERS: Mapping[str, Callable[[Path], Any]] = MappingProxyType(
    {
        "gzip": lambda path: gzip.open(path),  # noqa: SIM115
        "bzip2": lambda path: bz2.open(path),  # noqa: SIM115
        "zstd": lambda path: pa.input_stream(str(path), compression="zstd"),
    }
)
"""By name of compression. Not xz: a few bytes of it can ask for 4 GiB of dictionary."""


def decompressed(path: Path, compression: str, limits: Limits) -> IO[bytes]:
    """All of `path`, unpacked, in a nameless file beside it."""
    stream = OPENERS[compression](path)
    capped = cast(IO[bytes], _Capped(stream, path.stat().st_size, limits))
    return copied_to_scratch(capped, path.parent)
