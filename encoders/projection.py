"""Where each kind of tower keeps its last linear map: the "heads" of the `heads` scope.

A tower is `embedding = head(features)`. To read its features without copying its forward pass, the head's weight is
replaced by the identity while the tower runs (`torch.func.functional_call`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from open_clip import CLIP
from open_clip.hf_model import HFTextEncoder
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn


@dataclass(frozen=True)
class Projection:
    """Names in open_clip's state dict. `input_first`: kept as (D, E) and applied as `x @ W`, not as (E, D)."""

    weight: str
    bias: str | None
    input_first: bool

    def head(self, state: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """(weight (E, D), bias (E,) or None), as `torch.nn.functional.linear` takes them."""
        weight = state[self.weight]
        return (weight.T if self.input_first else weight), (state[self.bias] if self.bias else None)

    def identity(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What to put in the head's place so that the tower returns the head's input, (n, D)."""
        weight = state[self.weight]
        width = weight.shape[0 if self.input_first else 1]
        replaced = {self.weight: torch.eye(width, dtype=weight.dtype, device=weight.device)}
        if self.bias:
            replaced[self.bias] = weight.new_zeros(width)
        return replaced

    def restored(self, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
        """The inverse of `head`: entries of the state dict."""
        state = {self.weight: (weight.T if self.input_first else weight).contiguous()}
        return state if self.bias is None or bias is None else {**state, self.bias: bias}


def image_projection(model: Any) -> Projection | None:
    """The image tower's last linear map; None when it ends in something else."""
    return _projection(model.visual, "visual.")


def text_projection(model: Any) -> Projection | None:
    """The text tower's last linear map; None when it ends in something else."""
    return _projection(model, "") if isinstance(model, CLIP) else _projection(model.text, "text.")


def _projection(tower: nn.Module, prefix: str) -> Projection | None:
    for kind, locate in _LOCATE.items():
        if isinstance(tower, kind):
            name = locate(tower)
            return None if name is None else _described(tower, prefix, name)
    return None


def _described(tower: nn.Module, prefix: str, name: str) -> Projection | None:
    head: Any = tower
    for part in name.split("."):
        head = getattr(head, part)
    if isinstance(head, nn.Linear):
        bias = None if head.bias is None else f"{prefix}{name}.bias"
        return Projection(f"{prefix}{name}.weight", bias, input_first=False)
    return Projection(f"{prefix}{name}", None, input_first=True) if isinstance(head, nn.Parameter) else None


def _last_linear(module: nn.Module, name: str) -> str | None:
    """The last `nn.Linear` in or below `module`: a linear head, the end of an MLP head, or of an attention pool."""
    below = [path for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    return ".".join(filter(None, [name, below[-1]])) if below else None


def _timm(tower: Any) -> str | None:
    if name := _last_linear(tower.head, "head"):
        return name
    classifier = tower.trunk.get_classifier()
    return next((f"trunk.{path}" for path, part in tower.trunk.named_modules() if part is classifier), None)


# One entry for each class of tower. That the map found is really the last is checked when a model is loaded.
_LOCATE: Final[dict[type[nn.Module], Callable[[Any], str | None]]] = {
    VisionTransformer: lambda tower: "proj",
    ModifiedResNet: lambda tower: "attnpool.c_proj",
    TimmModel: _timm,
    CLIP: lambda model: "text_projection",
    TextTransformer: lambda tower: "text_projection",
    HFTextEncoder: lambda tower: _last_linear(tower.proj, "proj"),
}
