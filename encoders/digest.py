"""A model's digest: the name under which its features are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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


def canonical_json(value: Mapping[str, Any]) -> str:
    """One text for equal values: sorted keys, tuples as lists, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)
