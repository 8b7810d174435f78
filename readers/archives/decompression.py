"""A compressed tar, unpacked so that its members can be read in any order."""

import bz2
import gzip
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import IO, Any, cast

import pyarrow as pa

from readers.archives.member_bytes import Spent
from readers.limits import Limits
from readers.refusals import UploadRefused


class _Capped:
    """A stream that refuses to give out more than the limits allow for a file of `packed` bytes."""

    def __init__(self, stream: Any, packed: int, limits: Limits, spent: Spent) -> None:
        self._stream, self._packed, self._limits, self._spent, self._out = stream, packed, limits, spent, 0

    def read(self, count: int) -> bytes:
        data: bytes = self._stream.read(count)
        self._out += len(data)
        self._spent.add(len(data))
        if self._out > self._limits.ratio_floor_bytes and self._out > self._limits.max_ratio * self._packed:
            raise UploadRefused(
                "decompression_bomb", f"the archive unpacks to more than {self._limits.max_ratio} times its size"
            )
        return data

    def __enter__(self) -> "_Capped":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


OPENERS: Mapping[str, Callable[[IO[bytes]], Any]] = MappingProxyType(
    {
        "gzip": lambda packed: gzip.open(packed),  # noqa: SIM115
        "bzip2": lambda packed: bz2.open(packed),  # noqa: SIM115
        "zstd": lambda packed: pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd"),
    }
)
"""By name of compression. Not xz: a few bytes of it can ask for 4 GiB of dictionary."""

_TARS = {".tar.gz": "gzip", ".tgz": "gzip", ".tar.bz2": "bzip2", ".tar.zst": "zstd"}


def compression_of(name: str) -> str | None:
    """With what a tar is compressed, by its name; `None` where it is no compressed tar."""
    lower = name.lower()
    return next((compression for ending, compression in _TARS.items() if lower.endswith(ending)), None)


def decompressed(packed: IO[bytes], size: int, compression: str, limits: Limits, spent: Spent) -> IO[bytes]:
    """What the `size` bytes of `packed`, which stays open, unpack to, as a stream that counts towards `spent`."""
    return cast(IO[bytes], _Capped(OPENERS[compression](packed), size, limits, spent))
