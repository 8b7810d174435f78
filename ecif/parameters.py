"""Parameters as a dictionary and as one flat vector; the order is that of the sorted names."""

from __future__ import annotations

import torch
from torch import Tensor

Params = dict[str, Tensor]


def flatten(params: Params, leading: int = 0) -> Tensor:
    """(..., P) from tensors that share `leading` first dimensions, in order of sorted name."""
    return torch.cat(
        [
            params[name].flatten(leading) if params[name].ndim > leading else params[name].unsqueeze(-1)
            for name in sorted(params)
        ],
        dim=-1,
    )


def unflatten(flat: Tensor, like: Params) -> Params:
    """The inverse of `flatten`: (..., P) to tensors (..., *shape) of the dtype and device of `like`.

    Raises:
        ValueError: the last dimension is not the number of parameters in `like`.
    """
    names = sorted(like)
    sizes = [like[name].numel() for name in names]
    if flat.shape[-1] != sum(sizes):
        raise ValueError(f"{sum(sizes)} parameters expected, the flat vector has {flat.shape[-1]}")
    parts = dict(zip(names, torch.split(flat, sizes, dim=-1), strict=True))
    # In the order of `like`: torch.func compares dictionaries order and all.
    return {name: parts[name].reshape((*flat.shape[:-1], *like[name].shape)).to(like[name]) for name in like}


def size(params: Params) -> int:
    """P, the number of parameters."""
    return sum(tensor.numel() for tensor in params.values())


def row_dot(a: Tensor, b: Tensor, chunk: int = 1 << 20) -> Tensor:
    """Inner products of the rows of two (k, P), as (k,) float64.

    Float64 sums of float32 products, a chunk of columns at a time so that no (k, P) copy is made.
    """
    total = torch.zeros(a.shape[0], dtype=torch.float64, device=a.device)
    for left, right in zip(torch.split(a, chunk, dim=1), torch.split(b, chunk, dim=1), strict=True):
        total += torch.linalg.vecdot(left.double(), right.double())
    return total
