"""Digests: of a model, and of how its features are made, under which they are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn


def model_digest(config: Mapping[str, Any], preprocess: Mapping[str, Any], model: nn.Module) -> str:
    """Hex SHA-256 over the configuration, the preprocessing and every weight (and persistent buffer).

    Two models with the same digest give the same features; device and load order do not enter.
    """
    digest = hashlib.sha256(canonical_json({"model_cfg": config, "preprocess_cfg": preprocess}).encode())
    state: dict[str, Tensor] = model.state_dict()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


ENCODER_VERSION = "1"
"""Of the code that turns images and captions into features: raise it with every change of what it gives."""

_LIBRARIES = ("open_clip_torch", "pillow", "timm", "tokenizers", "torch", "torchvision", "transformers")


@cache
def encoder_versions() -> dict[str, str]:
    """Versions of all that has a part in a feature beside the model and the bytes: our code and the libraries."""
    return {"encoder": ENCODER_VERSION} | {name: version(name) for name in _LIBRARIES}


def encoding_digest(digest: str) -> str:
    """Hex SHA-256 that names the features that a model gives here: after an upgrade they are made anew."""
    return hashlib.sha256(canonical_json({"model": digest, "versions": encoder_versions()}).encode()).hexdigest()


def canonical_json(value: Mapping[str, Any]) -> str:
    """One text for equal values: sorted keys, tuples as lists, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)
