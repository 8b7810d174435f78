"""What a job says about its model, and how a model is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RefusalCode = Literal[
    "unknown_architecture",  # no such name in open_clip
    "unknown_pretrained",  # no such weights for that architecture
    "invalid_model_config",  # an inline configuration that open_clip cannot build
    "unsupported_model",  # trained with another loss, or towers that do not end in one vector each
    "model_too_large",  # more parameters than the limit
    "weights_unavailable",  # known, but the hub could not be reached: may work later
    "weights_mismatch",  # a checkpoint that does not belong to this architecture, or is damaged
    "not_foldable",  # edited heads that this architecture's checkpoint has no place for
]


RefusedPart = Literal["architecture", "pretrained", "scope"]
"""What of a model is at fault: its architecture, its pretrained weights, or the scope that is to be trained."""


class ModelRefused(Exception):  # noqa: N818 (a refusal is an answer about the model, not a fault of ours)
    """The model cannot be used. `message` is for the user; `path` is the place within an inline architecture, with
    dots, or empty."""

    def __init__(self, code: RefusalCode, message: str, part: RefusedPart, path: str = "") -> None:
        super().__init__(message)
        self.code: RefusalCode = code
        self.message = message
        self.part: RefusedPart = part
        self.path = path


@dataclass(frozen=True)
class ModelSpec:
    """A model by name or by inline configuration.

    architecture: a name that open_clip lists, `tiny`, or an open_clip model configuration
        (`{"embed_dim": …, "vision_cfg": {…}, "text_cfg": {…}}`, or a whole `open_clip_config.json`).
    pretrained: a tag that open_clip lists for the architecture; None starts at random from `seed`.
    """

    architecture: str | Mapping[str, Any]
    pretrained: str | None = None
    seed: int = 0

    def canonical(self) -> str:
        """The same text for the same model, whatever the order of the keys."""
        fields = [self.architecture, self.pretrained, self.seed]
        return json.dumps(fields, sort_keys=True, default=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A `.safetensors` file that is kept elsewhere: what tells it from all others, and a path to read it at."""

    digest: str
    local_path: Callable[[], AbstractContextManager[Path]]
