"""Names → open_clip configurations, and which of them this project cannot score."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from open_clip import get_model_config, list_models, list_pretrained_tags_by_model

from encoders.inline_config import split
from encoders.model_spec import ModelRefused
from encoders.tiny import TINY_CONFIG, TINY_NAME

PARAM = "model.architecture"

REFUSED_FIELDS = {
    "multimodal_cfg": (
        "CoCa models are trained with a captioning loss as well, whose influence is not computed here; "
        "choose a CLIP architecture"
    ),
    "init_logit_bias": (
        "models with a logit bias (SigLIP) are trained with a sigmoid loss, in which a pair has other "
        "roles than in the softmax loss; choose a CLIP architecture"
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
    """Every name that may be asked for: `tiny`, then open_clip's own."""
    return [TINY_NAME, *list_models()]


def resolve_architecture(architecture: str | Mapping[str, Any]) -> Architecture:
    """A name or an inline configuration → an architecture that can be scored.

    Raises ModelRefused (unknown_architecture, invalid_model_config, unsupported_model).
    """
    if isinstance(architecture, str):
        found = _named(architecture)
    else:
        config, preprocess = split(architecture)
        found = Architecture("inline configuration", config, preprocess)
    if reason := unsupported_reason(found.config):
        raise ModelRefused("unsupported_model", f"{found.name}: {reason}", PARAM)
    return found


def unsupported_reason(config: Mapping[str, Any]) -> str | None:
    """Why this project cannot score the architecture; None when it can."""
    return next((reason for field, reason in REFUSED_FIELDS.items() if config.get(field) is not None), None)


def _named(name: str) -> Architecture:
    if name == TINY_NAME:
        return Architecture(name, deepcopy(TINY_CONFIG))
    if name not in list_models():
        similar = difflib.get_close_matches(name.replace("/", "-"), architecture_names(), n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(similar)}?" if similar else ""
        raise ModelRefused("unknown_architecture", f"open_clip has no architecture {name[:80]!r}{hint}", PARAM)
    return Architecture(name, get_model_config(name), pretrained=tuple(list_pretrained_tags_by_model(name)))
