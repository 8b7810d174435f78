"""Uploads made to order, and a reader that sorts what comes out of them."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from readers.formats.registry import Format
from readers.limits import Limits
from readers.pairs import EmbeddingBlock, ImagePair, RejectedPair
from readers.refusals import UploadRefused
from readers.upload import UploadReader

WriteUpload = Callable[[bytes | bytearray], Path]

Files = Mapping[str, bytes]
Npy = Callable[..., bytes]
Saved = Callable[..., bytes]
Tar = Callable[..., bytes]
Tarred = Callable[..., Path]
Zipped = Callable[..., Path]


@dataclass
class Read:
    """Everything that came out of one upload."""

    format: Format
    kind: str
    total: int | None
    pairs: list[ImagePair] = field(default_factory=list)
    rejected: list[RejectedPair] = field(default_factory=list)
    blocks: list[EmbeddingBlock] = field(default_factory=list)
    unreferenced: int = 0
    ignored_columns: tuple[str, ...] = ()
    missing_shards: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    repeated_keys: int = 0

    @property
    def keys(self) -> list[str]:
        return [pair.key for pair in self.pairs]

    @property
    def reasons(self) -> list[str]:
        return [pair.reason for pair in self.rejected]


ReadUpload = Callable[..., Read]
Refusal = Callable[..., UploadRefused]


@pytest.fixture
def read() -> ReadUpload:
    """Read an upload to its end."""

    def read_all(path: Path, *, limits: Limits | None = None, **how: str) -> Read:
        with UploadReader(path, limits=limits, **how) as reader:
            found = Read(reader.format, reader.kind, reader.total)
            for item in reader:
                kinds: dict[type, list[Any]] = {
                    ImagePair: found.pairs,
                    RejectedPair: found.rejected,
                    EmbeddingBlock: found.blocks,
                }
                kinds[type(item)].append(item)
            found.unreferenced = reader.unreferenced
            found.ignored_columns = reader.ignored_columns
            found.missing_shards, found.left_out = reader.missing_shards, reader.left_out
            found.repeated_keys = reader.repeated_keys
        return found

    return read_all


@pytest.fixture
def refusal(read: ReadUpload) -> Refusal:
    """The refusal that reading an upload ends in."""

    def refused(path: Path, **how: Any) -> UploadRefused:
        with pytest.raises(UploadRefused) as caught:
            read(path, **how)
        assert list(path.parent.iterdir()) == [path], "something was left behind"
        return caught.value

    return refused


@pytest.fixture
def upload(tmp_path: Path) -> WriteUpload:
    """A file with these bytes, alone in its folder."""

    def write(content: bytes | bytearray) -> Path:
        path = tmp_path / "upload"
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def zipped(upload: WriteUpload) -> Zipped:
    """A zip of these files."""

    def write(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> Path:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return upload(buffer.getvalue())

    return write


@pytest.fixture
def tarred(upload: WriteUpload) -> Tarred:
    """A tar of these files, or of ready-made members without content."""

    def write(files: Files, mode: Any = "w", members: tuple[tarfile.TarInfo, ...] = (), tar_format: int = 1) -> Path:
        return upload(tar_bytes(files, mode, members, tar_format))

    return write


def tar_bytes(
    files: Files, mode: Any = "w", members: tuple[tarfile.TarInfo, ...] = (), tar_format: int = tarfile.GNU_FORMAT
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tar_format) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return buffer.getvalue()


@pytest.fixture
def tar() -> Tar:
    return tar_bytes


@pytest.fixture
def npy() -> Npy:
    """The bytes of a `.npy`."""

    def save(array: npt.NDArray[Any], *, allow_pickle: bool = False) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=allow_pickle)
        return buffer.getvalue()

    return save


@pytest.fixture(scope="session")
def saved() -> Saved:
    """An image as the bytes of a file."""

    def save(image: Image.Image, image_format: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, image_format, **options)
        return stream.getvalue()

    return save
