"""Pretrained weights: from a tag that open_clip knows, or from a directory that the operator named.

Nothing here unpickles an object. open_clip asks the hub for `.safetensors` first; an older `.bin` or `.pt` goes
through `torch.load(weights_only=True)`, which builds tensors and nothing else. A local file must be `.safetensors`.
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
    """A checkpoint on this disk, and what it asks of the model around it."""

    name: str
    path: Path
    preprocess: dict[str, Any] = field(default_factory=dict)
    quick_gelu: bool = False


def find_weights(architecture: Architecture, name: str, checkpoints: Path | None) -> Weights:
    """Download a tag's weights (or find them in the hub's cache), or find a file below `checkpoints`.

    Raises ModelRefused (unknown_pretrained, weights_unavailable).
    """
    tag = get_pretrained_cfg(architecture.name, name)
    if tag:
        return Weights(name, _download(tag, name), tag, bool(tag.get("quick_gelu", False)))
    if checkpoints is not None and (path := local_checkpoint(name, checkpoints)):
        return Weights(name, path)
    known = ", ".join(architecture.pretrained) or "none: leave `pretrained` null to start at random"
    raise ModelRefused(
        "unknown_pretrained", f"{architecture.name} has no pretrained weights {name[:80]!r}; known: {known}", PARAM
    )


def local_checkpoint(name: str, checkpoints: Path) -> Path | None:
    """The `.safetensors` file of that name below `checkpoints`; None for anything else, links out of it included."""
    root = checkpoints.resolve()
    try:
        path = (root / name).resolve()
        inside = path.is_relative_to(root) and path.suffix == ".safetensors" and path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return None
    return path if inside else None


def fill(model: nn.Module, weights: Weights) -> None:
    """Load the checkpoint into `model`, in place. Raises ModelRefused("weights_mismatch")."""
    try:
        load_checkpoint(model, str(weights.path), strict=True, weights_only=True)
    except Exception as error:  # a checkpoint is a stranger's file
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelRefused(
            "weights_mismatch", f"{weights.name} does not fit the architecture: {reason}", PARAM
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise ModelRefused("weights_mismatch", f"{weights.name} holds values that are not finite", PARAM)


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
