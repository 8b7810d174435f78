"""Tensors in blobs, as safetensors: no pickle ever."""

from safetensors.torch import load, save
from torch import Tensor

from store.blobs import Blobs


def put_tensors(blobs: Blobs, name: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Keep named tensors in one blob, with what is to be said of them in its header; return its name."""
    kept = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    blobs.put(name, save(kept, metadata))
    return name


def get_tensors(blobs: Blobs, name: str) -> dict[str, Tensor]:
    """The named tensors of a blob, on the CPU."""
    return load(blobs.get(name))
