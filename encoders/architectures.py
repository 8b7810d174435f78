"""Names and inline configurations → open_clip configurations, and which of them this project cannot score.

The fields of an inline configuration were checked when it came in (`store/open_clip_config.py`). What only the machine
that loads it can tell is checked here: open_clip passes a name of the hub to `from_pretrained` functions, which would
read a local path.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from open_clip import get_model_config, list_models, list_pretrained_tags_by_model

from encoders.model_spec import ModelRefused

TINY_NAME: Final = "tiny"
"""Our own architecture for trials: 32-pixel images, 3.3 million parameters (3.2 of them the vocabulary).

Trains on 1,400 pictures for 15 epochs in a quarter of a minute on two CPU cores. Its two heads have 4,096
parameters together: few enough for exact self-influence.
"""

TINY_CONFIG: Final[dict[str, Any]] = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "width": 64,
        "layers": 3,
        "head_width": 16,
        "mlp_ratio": 2.0,
        "pool_type": "avg",  # with the class token it learned later, and less surely
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,  # open_clip's own tokenizer
        "width": 64,
        "heads": 4,
        "layers": 2,
        "mlp_ratio": 2.0,
    },
}


REFUSED_FIELDS = {
    "multimodal_cfg": (
        "CoCa models are trained with a captioning loss as well, whose influence is not computed here; "
        "choose a CLIP architecture"
    ),
}
"""Why a configuration that sets one of these cannot be scored (docs/methods.md)."""


@dataclass(frozen=True)
class Architecture:
    """An open_clip configuration with what belongs to it."""

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any] = field(default_factory=dict)
    """What differs from open_clip's default preprocessing."""
    pretrained: tuple[str, ...] = ()
    """The tags that open_clip lists."""


def architecture_names() -> list[str]:
    """Every name that is known: `tiny`, then open_clip's own."""
    return [TINY_NAME, *list_models()]


def resolve_architecture(architecture: str | Mapping[str, Any]) -> Architecture:
    """A name or an inline configuration → an architecture that can be scored.

    Raises ModelRefused (unknown_architecture, invalid_model_config, unsupported_model).
    """
    if isinstance(architecture, str):
        resolved = _named(architecture)
    else:
        config, preprocess = split_config(architecture)
        resolved = Architecture("inline configuration", config, preprocess)
    if reason := unsupported_reason(resolved.config):
        raise ModelRefused("unsupported_model", f"{resolved.name}: {reason}", "architecture")
    return resolved


def unsupported_reason(config: Mapping[str, Any]) -> str | None:
    """Why this project cannot score the architecture; None when it can."""
    return next((reason for field, reason in REFUSED_FIELDS.items() if config.get(field) is not None), None)


def loss_of(config: Mapping[str, Any]) -> Literal["softmax", "sigmoid"]:
    """What models of a configuration are trained with: the sigmoid loss where their logits have a bias (SigLIP)."""
    return "softmax" if config.get("init_logit_bias") is None else "sigmoid"


def _named(name: str) -> Architecture:
    if name == TINY_NAME:
        return Architecture(name, deepcopy(TINY_CONFIG))
    if name not in list_models():
        similar = difflib.get_close_matches(name.replace("/", "-"), architecture_names(), n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(similar)}?" if similar else ""
        raise ModelRefused("unknown_architecture", f"open_clip has no architecture {name[:80]!r}{hint}", "architecture")
    return Architecture(name, get_model_config(name), pretrained=tuple(list_pretrained_tags_by_model(name)))


def split_config(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model configuration, preprocessing) of a bare configuration or a whole `open_clip_config.json`.

    Raises ModelRefused("invalid_model_config") where a name of the hub is that of a local file too.
    """
    whole = "model_cfg" in given
    config = dict(given["model_cfg"] if whole else given)
    for name in ("hf_model_name", "hf_tokenizer_name"):
        value = config["text_cfg"].get(name)
        if value and Path(value).exists():
            path = f"{'model_cfg.' if whole else ''}text_cfg.{name}"
            reason = f"{name}: a file of this machine has that name"
            raise ModelRefused("invalid_model_config", reason, "architecture", path)
    return config, dict(given.get("preprocess_cfg") or {}) if whole else {}
