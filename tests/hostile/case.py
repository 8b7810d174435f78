"""What a hostile upload is, and how the ordinary parts of one are made."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tests.service_fixtures import picture

Make = Callable[[str], bytes]
"""Given a path outside that the upload may aim at, its bytes."""


def fixed(make: Callable[..., bytes], *given: Any) -> Make:
    """What aims at nothing outside."""
    return lambda _: make(*given)


@dataclass(frozen=True)
class Case:
    """name: what is wrong with it. ends: how the service answers; `names`: words of its reason.

    - `refused`: a 4xx
    - `failed`: the dataset or model fails
    - `rejected`: some pairs are turned away; `kept` others are not (none: the dataset fails)
    - `ready`: odd, and read as what it is, `kept` pairs of it
    """

    name: str
    ends: Literal["refused", "failed", "rejected", "ready"]
    names: tuple[str, ...]
    make: Make
    filename: str = "data.zip"
    door: Literal["datasets", "models", "uploads"] = "datasets"
    fields: dict[str, str] = field(default_factory=dict)
    kept: int = 0


ROW = "file_name,caption\ngood.png,a good one\nevil.png,an evil one\n"


def zip_of(files: Mapping[Any, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip; names may be `ZipInfo`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def beside_a_good_one(evil: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of two pairs, of which the image of the second is `evil`."""
    return zip_of({"metadata.csv": ROW, "good.png": picture(0), "evil.png": evil}, compression)


def table(content: bytes | str, name: str = "metadata.csv", compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of a table beside one image, `0.png`."""
    return zip_of({name: content, "0.png": picture(0)}, compression)


def shard(**files: bytes) -> dict[str, bytes]:
    """A webdataset with a good pair first."""
    return {"good.png": picture(0), "good.txt": b"a good one"} | files


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def npy_header(shape: str, descr: str = "'<f4'", version: bytes = b"\1\0", length: int | None = None) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + version + size + text


def embeddings(image: bytes, text: bytes | None = None) -> bytes:
    return zip_of({"image.npy": image, "text.npy": npy(np.eye(4, 3, dtype=np.float32)) if text is None else text})


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: tuple[int, ...] = (2, 3), offsets: tuple[int, int] = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}
