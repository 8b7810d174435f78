"""`python -m encoders.catalogue`: what the installed open_clip and timm list, as JSON on standard output.

Kept as `store/open_clip_models.json`, so that the HTTP process checks names without importing torch.
"""

from __future__ import annotations

import json
import sys
from typing import TypedDict

import timm
from open_clip import get_model_config, list_pretrained_tags_by_model

from encoders.architectures import REFUSED_FIELDS, architecture_names, loss_of, unsupported_reason


class Entry(TypedDict):
    """One architecture: its pretrained tags, their loss, and why it is refused (None: it is not)."""

    pretrained: list[str]
    loss: str
    refused: str | None


class Catalogue(TypedDict):
    """What may be named, and which fields of a configuration are refused, each with its reason."""

    architectures: dict[str, Entry]
    refused_fields: dict[str, str]
    timm_models: list[str]


def catalogue() -> Catalogue:
    """What the installed libraries know."""
    return {
        "architectures": {
            name: {
                "pretrained": list_pretrained_tags_by_model(name),
                "loss": loss_of(config),
                "refused": unsupported_reason(config),
            }
            for name in architecture_names()
            for config in (get_model_config(name) or {},)
        },
        "refused_fields": REFUSED_FIELDS,
        "timm_models": timm.list_models(),
    }


if __name__ == "__main__":
    json.dump(catalogue(), sys.stdout, indent=1)
    sys.stdout.write("\n")
