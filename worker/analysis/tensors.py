"""Tensors in blobs, as safetensors: no pickle ever."""

import json
from typing import Final

import torch
from safetensors.torch import load, save
from torch import Tensor

from store.blobs import Blobs

_DTYPES: Final = {"F64": torch.float64, "F32": torch.float32, "I64": torch.int64, "BOOL": torch.bool}


def put_tensors(blobs: Blobs, name: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Keep named tensors in one blob, with what is to be said of them in its header; return its name."""
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    blobs.put(name, save(plain, metadata))
    return name


def get_tensors(blobs: Blobs, name: str) -> dict[str, Tensor]:
    """The named tensors of a blob, on the CPU."""
    return load(blobs.get(name))


def get_elements(blobs: Blobs, name: str, first: int, last: int) -> dict[str, Tensor]:
    """Elements `first` to `last` of each tensor of a blob, all of them (N,); no other byte of it is read."""
    length = int.from_bytes(blobs.get_range(name, 0, 8), "little")
    entries = json.loads(blobs.get_range(name, 8, length))
    entries.pop("__metadata__", None)
    dtypes = {key: _DTYPES[entry["dtype"]] for key, entry in entries.items()}
    ranges = [
        (8 + length + entry["data_offsets"][0] + first * dtypes[key].itemsize, (last - first) * dtypes[key].itemsize)
        for key, entry in entries.items()
    ]
    pieces = blobs.get_ranges(name, ranges)
    return {
        key: torch.frombuffer(bytearray(raw), dtype=dtype)
        for (key, dtype), raw in zip(dtypes.items(), pieces, strict=True)
    }
