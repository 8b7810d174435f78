"""LoRA adapters on every linear map of both towers: W + (α/r)·B·A with W frozen (Hu et al. 2021, arXiv 2106.09685).

The layers are peft's wherever the model calls its linear layers. Attention often reads its weights without calling the
layer that holds them (`nn.MultiheadAttention`, a ModifiedResNet's pool, BEiT's qkv), and CLIP keeps its heads as bare
parameters: there an adapter layer is passed by, and peft's own attention layer merges in place, which no transform of
`torch.func` takes. Such a weight is replaced by the sum itself while the tower runs. That would serve all weights
alike, but eight directions forwards through a ViT-B-32 then took three times as long, and backwards four times.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.random import fork_rng

from encoders.embedder import Parameters
from encoders.model_spec import ModelRefused
from encoders.towers import Towers

DEFAULT_RANK: Final = 8
DEFAULT_ALPHA: Final = 16.0

_A, _B = ".lora_A", ".lora_B"
_APART: Final = 1_000_003  # from the draws of a model that starts at random from the same seed


@dataclass(frozen=True)
class Adapters:
    """Both towers with adapters. The frozen weights are shared with the model, which stays as it was.

    called: names of the weights whose linear layers are peft's. read: those that are read without a call.
    """

    towers: Towers
    called: tuple[str, ...]
    read: tuple[str, ...]
    frozen: Parameters
    rank: int
    alpha: float

    @classmethod
    def on(
        cls, towers: Towers, heads: Iterable[str], sample: tuple[Tensor, Tensor], rank: int, alpha: float
    ) -> Adapters:
        """heads: names of the towers' last linear maps. sample: (pixels, tokens), which the towers take.

        Raises ModelRefused("unsupported_model") when a tower has no linear map.
        """
        linears = {f"{name}.weight" for name, part in towers.model.named_modules() if isinstance(part, nn.Linear)}
        called = _called(towers, sample)
        read = (linears | _packed(towers.model) | set(heads)) - called
        for tower, names in _by_tower(called | read).items():
            if not names:
                reason = f"the {tower} tower has no linear layer to adapt; use another scope"
                raise ModelRefused("unsupported_model", reason, "scope")
        state: Parameters = towers.model.state_dict()
        frozen = {name: state[name] for name in sorted(called | read)}
        with_layers = _injected(towers, called, rank, alpha)
        if not _answers(with_layers, sample):
            # open_clip looks at the type of a text head with a bias before it calls it.
            with_layers, called, read = towers, set(), called | read
        return cls(with_layers, tuple(sorted(called)), tuple(sorted(read)), frozen, rank, alpha)

    def drawn(self, seed: int) -> Parameters:
        """For each adapted weight W (out, in), named as in the state dict: `W.lora_A` (r, in), uniform within ±1/√in
        as peft has it but from a generator of its own, and `W.lora_B` (out, r), zero."""
        generator = torch.Generator().manual_seed((seed + _APART) % 2**63)
        parameters: Parameters = {}
        for name, weight in self.frozen.items():
            rows, columns = weight.shape
            uniform = 2 * torch.rand(self.rank, columns, generator=generator) - 1
            parameters[name + _A] = (uniform / columns**0.5).to(weight)
            parameters[name + _B] = weight.new_zeros(rows, self.rank)
        return parameters

    def embed(self, parameters: Parameters, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """As `Embedder` has it; parameters as `drawn` names them."""
        inside = {name: adapted(name, self.frozen, parameters, self.alpha) for name in self.read}
        for name in self.called:
            layer = name.removesuffix(".weight")
            inside[f"{layer}.lora_A.default.weight"] = parameters[name + _A]
            inside[f"{layer}.lora_B.default.weight"] = parameters[name + _B]
        return cast("tuple[Tensor, Tensor]", self.towers.call(inside, images, texts))


def adapted_weights(parameters: Iterable[str]) -> list[str]:
    """The names of the weights that parameters named by `Adapters.drawn` belong to."""
    return [name.removesuffix(_A) for name in parameters if name.endswith(_A)]


def adapted(name: str, state: Parameters, parameters: Parameters, alpha: float) -> Tensor:
    """The weight of that name with its adapter inside."""
    A, B = parameters[name + _A], parameters[name + _B]
    return state[name] + alpha / A.shape[0] * (B @ A)


def _called(towers: Towers, sample: tuple[Tensor, Tensor]) -> set[str]:
    """The weights of the linear layers that the towers call."""
    called: set[str] = set()
    hooks = [
        part.register_forward_pre_hook(lambda _part, _inputs, name=name: called.add(f"{name}.weight"))
        for name, part in towers.model.named_modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        with torch.no_grad():
            towers(*sample)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _answers(towers: Towers, sample: tuple[Tensor, Tensor]) -> bool:
    """Whether the towers still work with other layers in them."""
    try:
        with torch.no_grad():
            towers(*sample)
    except (TypeError, AttributeError):
        return False
    return True


def _packed(model: nn.Module) -> set[str]:
    """The weights of attention that stand in no layer: `in_proj_weight`, or `q_proj_weight` and so on."""
    return {name for name, weight in model.named_parameters() if name.endswith("_proj_weight") and weight.ndim == 2}


def _by_tower(names: set[str]) -> dict[str, set[str]]:
    image = {name for name in names if name.startswith("visual.")}
    return {"image": image, "text": names - image}


def _injected(towers: Towers, called: set[str], rank: int, alpha: float) -> Towers:
    """A copy with the same weights, not copies of them, and peft's layers in it."""
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

    shared = {id(tensor): tensor for tensor in (*towers.parameters(), *towers.buffers())}
    adapted = copy.deepcopy(towers, shared)
    if called:
        layers = "|".join(re.escape(name.removesuffix(".weight")) for name in called)
        config = LoraConfig(r=rank, lora_alpha=cast("int", alpha), target_modules=layers)
        with fork_rng(devices=[]):  # its own first draws are replaced
            inject_adapter_in_model(config, adapted.model)
    return adapted
