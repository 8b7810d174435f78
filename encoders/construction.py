"""An open_clip configuration → a model with random weights: the same for the same seed, on any device.

Departs from `open_clip.create_model` where that cannot take a configuration, count parameters before they are
allocated, or leave the caller's random numbers alone. The classes and the choice between them are open_clip's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from open_clip import CLIP, CustomTextCLIP, hf_model
from torch import nn
from torch.random import fork_rng

from encoders.model_spec import ModelRefused


def build(config: Mapping[str, Any], seed: int, max_parameters: int) -> nn.Module:
    """The model on the CPU, float32, in evaluation mode.

    Raises ModelRefused (model_too_large, invalid_model_config, weights_unavailable).
    """
    _reach_hub(config)
    with torch.device("meta"):  # shapes without memory
        size = parameter_count(_construct(config))
    if size > max_parameters:
        raise ModelRefused(
            "model_too_large",
            f"the model has {size:,} parameters; the limit here is {max_parameters:,}",
            "architecture",
        )
    with fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        return _construct(config).eval()


def parameter_count(model: nn.Module) -> int:
    """Numbers held by a model, buffers included."""
    return sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])


def _construct(config: Mapping[str, Any]) -> nn.Module:
    arguments: dict[str, Any] = copy.deepcopy(dict(config))
    text = arguments["text_cfg"]
    custom_text = arguments.pop("custom_text", False) or bool(text.get("hf_model_name"))
    # Weights come from one checkpoint or none: never a tower's own pretraining besides.
    text["hf_model_pretrained"] = False
    arguments["vision_cfg"]["timm_model_pretrained"] = False
    try:
        model: nn.Module = (CustomTextCLIP if custom_text else CLIP)(**arguments)
    except Exception as error:  # open_clip and timm check by failing, each in its own way
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ModelRefused(
            "invalid_model_config", f"open_clip cannot build this configuration: {reason}", "architecture"
        ) from error
    return model


def _reach_hub(config: Mapping[str, Any]) -> None:
    """A Hugging Face text tower is described on the hub: say so when that cannot be read."""
    name = config["text_cfg"].get("hf_model_name")
    if not name:
        return
    if hf_model.transformers is None:
        raise ModelRefused(
            "unsupported_model",
            f"the text tower {name} needs the package `transformers`, not installed here",
            "architecture",
        )
    try:
        hf_model.AutoConfig.from_pretrained(name)
    except Exception as error:  # the hub client's exceptions share no base
        raise ModelRefused(
            "weights_unavailable",
            f"the text tower {name} is described on the Hugging Face hub, which could not be read",
            "architecture",
        ) from error
