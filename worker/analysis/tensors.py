"""Tensors in blobs, as safetensors: no pickle ever; and state that outlasts a shard, saved every few seconds and loaded
by whoever does the shard next."""

import json
import math
import time
from typing import Final

import torch
from safetensors.torch import load, save
from torch import Tensor

from ecif import OnState, State
from store.blobs import Blobs
from worker.attempts.task import Task

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
    """Elements `first` to `last` of each tensor of a blob, all of them (N, …); no other byte of it is read."""
    length = int.from_bytes(blobs.get_range(name, 0, 8), "little")
    entries = json.loads(blobs.get_range(name, 8, length))
    entries.pop("__metadata__", None)
    ranges = []
    for entry in entries.values():
        size = math.prod(entry["shape"][1:]) * _DTYPES[entry["dtype"]].itemsize
        ranges.append((8 + length + entry["data_offsets"][0] + first * size, (last - first) * size))
    pieces = blobs.get_ranges(name, ranges)
    return {
        key: torch.frombuffer(bytearray(raw), dtype=_DTYPES[entry["dtype"]]).reshape(-1, *entry["shape"][1:])
        for (key, entry), raw in zip(entries.items(), pieces, strict=True)
    }


_EVERY_SECONDS = 20.0


def resumed(task: Task) -> State | None:
    """What the last attempt at this shard left, if it left anything."""
    checkpoint = task.claim.checkpoint
    return get_tensors(task.blobs, checkpoint["blob"]) if checkpoint else None


def keeper(task: Task) -> OnState:
    """A callback that keeps the state it is handed, at most once in a while.

    Two blobs take turns: the one that the row names is never the one that is being written.
    """
    last, turn = time.monotonic(), 0

    def keep(state: State) -> None:
        nonlocal last, turn
        if time.monotonic() - last < _EVERY_SECONDS:
            return
        blob = put_tensors(task.blobs, task.blob_name(f"state-{turn % 2}.safetensors"), state)
        task.save_checkpoint({"blob": blob})
        last, turn = time.monotonic(), turn + 1

    return keep
