"""What a file is, by its first bytes; its name only helps to explain a refusal."""

from enum import Enum, auto
from pathlib import Path, PurePosixPath

from readers.archives.tar_archive import BLOCK, is_header
from readers.printable import printable
from readers.refusals import UploadRefused

UNDERSTOOD = (
    "a zip or tar (also .tar.gz, .tar.bz2, .tar.zst) with metadata.csv, .jsonl or .parquet beside its images; "
    "open_clip's tab-separated CSV beside its images; a webdataset or img2dataset tar, or an archive of them; "
    "Hugging Face parquet; COCO captions beside their images; images in folders named by their class; "
    "files that a croissant.json describes; parquet with columns of embeddings; "
    "a .safetensors with tensors image and text; an .npz, zip or tar of image.npy and text.npy"
)
_USE_INSTEAD = "save the embeddings as .safetensors with tensors image and text, or as image.npy and text.npy in a zip"
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle"})
_NOT_READ = {
    b"\xfd7zXZ\0": "xz, which is not read; compress the tar with gzip or zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; make it a zip or a tar",
    b"Rar!": "a RAR archive; make it a zip or a tar",
    b"\x93NUMPY": "one .npy alone; put image.npy and text.npy into a zip",
    b"ARROW1": "an Arrow file; write it as parquet",
    b"\xff\xd8\xff": "one image alone",
    b"\x89PNG": "one image alone",
}


class Container(Enum):
    """How the bytes of an upload are packed."""

    ZIP = auto()
    TAR = auto()
    GZIP = auto()
    BZIP2 = auto()
    ZSTD = auto()
    PARQUET = auto()
    SAFETENSORS = auto()


_MAGIC = {
    b"PK\3\4": Container.ZIP,
    b"PK\5\6": Container.ZIP,
    b"\x1f\x8b": Container.GZIP,
    b"BZh": Container.BZIP2,
    b"\x28\xb5\x2f\xfd": Container.ZSTD,
    b"PAR1": Container.PARQUET,
}


def sniff(path: Path, filename: str | None) -> Container:
    """What `path` is.

    Raises:
        UploadRefused: it is nothing that is read; the message says what was seen and what would be.
    """
    with path.open("rb") as file:
        head = file.read(BLOCK)
    suffix = PurePosixPath(filename or "").suffix.lower()
    if suffix in _PICKLE_SUFFIXES:
        raise pickle_refused(f"a {suffix} file")
    if not head:
        raise UploadRefused("unknown_format", f"the file is empty; understood are: {UNDERSTOOD}")
    for magic, container in _MAGIC.items():
        if head.startswith(magic):
            return container
    if is_header(head):
        return Container.TAR
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return Container.SAFETENSORS
    if (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5") or suffix == ".bin":
        raise pickle_refused("a .bin file" if suffix == ".bin" else "a pickle")
    raise unknown(_described(head, filename))


def pickle_refused(seen: str) -> UploadRefused:
    """For whatever can run code when it is read."""
    return UploadRefused("pickle_refused", f"{seen} may hold pickled objects, which can run code; {_USE_INSTEAD}")


def unknown(seen: str) -> UploadRefused:
    """For what is no format of ours."""
    return UploadRefused("unknown_format", f"this upload is {seen}; understood are: {UNDERSTOOD}")


def _described(head: bytes, filename: str | None) -> str:
    for magic, what in _NOT_READ.items():
        if head.startswith(magic):
            return what
    named = f" named {printable(filename, 100)}" if filename else ""
    if b"\0" not in head:
        return f"text{named}; a table goes into a zip or a tar together with its images"
    return f"of an unknown kind{named}, beginning with the bytes {head[:8].hex(' ')}"
