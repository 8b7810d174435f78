"""Where this process computes, and how exactly."""

from typing import Literal

import torch
from billiard import current_process

from store.settings import Settings


def device_of(settings: Settings, gpus: int | None = None) -> torch.device:
    """`ECIF_DEVICE`; where that names no GPU by number, the worker processes of a host take its GPUs in turn.

    gpus: how many this host has; counted unless given.
    """
    if settings.ecif_device not in ("auto", "cuda"):
        return torch.device(settings.ecif_device)
    count = torch.cuda.device_count() if gpus is None else gpus
    if count:
        return torch.device("cuda", place_in_pool() % count)
    return torch.device("cpu" if settings.ecif_device == "auto" else "cuda")


def place_in_pool() -> int:
    """Which of its host's worker processes this is, from 0; one that replaces another takes its place."""
    return int(getattr(current_process(), "index", 0))


def compute_in_float32() -> None:
    """Products of float32 are of float32, not of TF32, from now on in this process.

    PyTorch leaves convolutions to TF32, whose 10 bits are less than a solve's tolerance and would make a model's
    features depend on the device. What may be coarser asks for bfloat16 by itself (`adam_precision`).
    """
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]


def adam_precision(device: torch.device, scope: str) -> Literal["bfloat16", "float32"]:
    """How whole towers go through Adam's epochs on this device; heads on cached features are not worth rounding."""
    if scope == "heads" or device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
