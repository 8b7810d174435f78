"""Pretrained weights: from a tag that open_clip knows, or from a checkpoint that a user brought.

Nothing here unpickles an object. open_clip asks the hub for `.safetensors` first; an older `.bin` or `.pt` goes
through `torch.load(weights_only=True)`, which builds tensors and nothing else. A user's checkpoint is `.safetensors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from open_clip import download_pretrained, get_pretrained_cfg, load_checkpoint
from torch import nn

from encoders.architectures import Architecture
from encoders.model_spec import ModelRefused

PARAM = "model.pretrained"


@dataclass(frozen=True)
class Weights:
    """A published checkpoint on this disk, and what it asks of the model around it."""

    name: str
    path: Path
    preprocess: dict[str, Any] = field(default_factory=dict)
    quick_gelu: bool = False


def find_weights(architecture: Architecture, name: str) -> Weights:
    """Download a tag's weights, or find them in the hub's cache.

    Raises ModelRefused (unknown_pretrained, weights_unavailable).
    """
    tag = get_pretrained_cfg(architecture.name, name)
    if tag:
        return Weights(name, _download(tag, name), tag, bool(tag.get("quick_gelu", False)))
    known = ", ".join(architecture.pretrained) or "none: leave `pretrained` null to start at random"
    raise ModelRefused(
        "unknown_pretrained", f"{architecture.name} has no pretrained weights {name[:80]!r}; known: {known}", PARAM
    )


def fill(model: nn.Module, path: Path, name: str) -> None:
    """Load the checkpoint into `model`, in place. Raises ModelRefused("weights_mismatch")."""
    try:
        load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # a checkpoint is a stranger's file
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelRefused("weights_mismatch", f"{name} does not fit the architecture: {reason}", PARAM) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise ModelRefused("weights_mismatch", f"{name} holds values that are not finite", PARAM)


def _download(tag: dict[str, Any], name: str) -> Path:
    try:
        return Path(download_pretrained(tag))
    except Exception as error:  # open_clip lets each hub's and each transport's own exceptions through
        source = tag.get("hf_hub") or tag.get("url")
        raise ModelRefused(
            "weights_unavailable",
            f"the weights {name} could not be downloaded from {source}; is there a network, and is the hub up?",
            PARAM,
        ) from error
