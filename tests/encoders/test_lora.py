"""Scope `lora`: adapters on every linear map of every kind of tower."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from open_clip import CustomTextCLIP
from open_clip.hf_model import HFTextEncoder
from PIL.Image import Image
from torch import Tensor
from torch.func import functional_call, grad, jvp, vjp, vmap
from transformers import RobertaConfig

from encoders.adapters import Adapters
from encoders.loaded_model import LoadedModel
from encoders.loading import load_model
from encoders.model_spec import ModelRefused, ModelSpec
from encoders.towers import Towers

ForwardMode = Callable[[], AbstractContextManager[None]]

CAPTIONS = ["a red square", "two dogs"]
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}


def pairs(model: LoadedModel, pictures: list[Image]) -> tuple[Tensor, Tensor]:
    return model.prepare_images(pictures), model.tokenize(CAPTIONS).ids


def moved(parameters: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        name: weight + 0.05 * torch.randn(weight.shape, generator=g).to(weight) for name, weight in parameters.items()
    }


def test_at_first_the_model_is_as_it_was(model: LoadedModel, pictures: list[Image]) -> None:
    lora, full = model.lora(), model.full()
    inputs = pairs(model, pictures)
    with torch.no_grad():
        embeddings, expected = lora(lora.parameters, *inputs), full(full.parameters, *inputs)
    for mine, theirs in zip(embeddings, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert lora.temperature == full.temperature


@pytest.mark.parametrize("alpha", [16.0, 3.0])
def test_merged_adapters_are_the_adapted_model(model: LoadedModel, pictures: list[Image], alpha: float) -> None:
    lora, full = model.lora(rank=3, alpha=alpha), model.full()
    edited, inputs = moved(lora.parameters), pairs(model, pictures)
    state = model.state_dict_with(edited, "lora", lora_alpha=alpha)
    assert state.keys() == model.state_dict_with(full.parameters, "all").keys()
    with torch.no_grad():
        embeddings = lora(edited, *inputs)
        merged = full({name: state[name] for name in full.parameters}, *inputs)
        before = full(full.parameters, *inputs)
    for adapted, folded, original in zip(embeddings, merged, before, strict=True):
        torch.testing.assert_close(adapted, folded, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(adapted, original, rtol=1e-2, atol=1e-2)


def test_every_adapter_is_felt(model: LoadedModel, pictures: list[Image]) -> None:
    """None is passed by: where attention reads its weights, where a head is a bare parameter."""
    lora, inputs = model.lora(), pairs(model, pictures)

    def length(parameters: dict[str, Tensor]) -> Tensor:
        texts, images = lora(parameters, *inputs)
        return texts.square().sum() + images.square().sum()

    gradient = grad(length)(moved(lora.parameters))
    assert not [name for name, slope in gradient.items() if not bool(slope.any())]
    names = {name.rsplit(".", 1)[0] for name in lora.parameters}
    linear = {
        f"{name}.weight" for name, part in model._towers.model.named_modules() if isinstance(part, torch.nn.Linear)
    }
    assert linear <= names
    assert (model._image.projection is None) == ("map" in model.config["vision_cfg"].values())
    assert model._image.projection is None or model._image.projection.weight in names


def test_forwards_backwards_and_many_at_once(
    model: LoadedModel, pictures: list[Image], forward_mode: ForwardMode
) -> None:
    lora, inputs = model.lora(rank=2), pairs(model, pictures)
    start = moved(lora.parameters)
    g = torch.Generator().manual_seed(1)
    directions = {name: torch.randn(3, *weight.shape, generator=g) for name, weight in start.items()}

    def embed(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return lora(parameters, *inputs)

    with forward_mode(), torch.no_grad():
        pushed = vmap(lambda tangent: jvp(embed, (start,), (tangent,))[1])(directions)
        outputs, pull = vjp(embed, start)[:2]
        cotangents = tuple(torch.randn(output.shape, generator=g) for output in outputs)
        (pulled,) = pull(cotangents)
    forwards = sum((p * c).flatten(1).sum(1) for p, c in zip(pushed, cotangents, strict=True))
    backwards = sum((pulled[name] * directions[name]).flatten(1).sum(1) for name in start)
    torch.testing.assert_close(forwards, backwards, rtol=1e-3, atol=1e-3)


def test_the_draw_is_the_seed_s_and_nobody_else_s(tiny: LoadedModel) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = tiny.lora(seed=7).parameters, tiny.lora(seed=7).parameters, tiny.lora(seed=8).parameters
    assert torch.equal(torch.rand(3), expected)
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        if name.endswith(".lora_B"):
            assert not bool(weight.any())
        else:
            assert not torch.equal(weight, other[name])
            assert 0.5 < float(weight.abs().max()) * weight.shape[1] ** 0.5 <= 1


def test_the_model_itself_is_left_alone(tiny: LoadedModel, pictures: list[Image]) -> None:
    names = list(tiny._towers.state_dict())
    lora = tiny.lora()
    lora(moved(lora.parameters), *pairs(tiny, pictures))
    assert list(tiny._towers.state_dict()) == names
    assert sum(weight.numel() for weight in lora.parameters.values()) == 5 * 8 * (256 + 128 + 192 + 192) + 2 * 8 * 96
    again = tiny.lora()
    assert isinstance(again.embed.__self__, Adapters)  # type: ignore[attr-defined]
    weights = {id(weight) for weight in tiny._towers.parameters()}
    shared = {id(weight) for weight in again.embed.__self__.towers.parameters()}  # type: ignore[attr-defined]
    assert weights <= shared


def test_a_tower_without_linear_layers_is_refused() -> None:
    """A convolutional trunk whose features are the embedding."""
    vision = {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "none", "image_size": 64}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = load_model(ModelSpec({"embed_dim": 96, "vision_cfg": vision, "text_cfg": text}))
    with pytest.raises(ModelRefused, match="image tower has no linear layer") as refusal:
        model.lora()
    assert (refusal.value.code, refusal.value.part) == ("unsupported_model", "scope")


def test_a_hugging_face_text_tower(forward_mode: ForwardMode) -> None:
    config = RobertaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
    )
    clip: Any = CustomTextCLIP(8, VISION, {"width": 16, "heads": 2, "layers": 1})
    clip.text = HFTextEncoder("unnamed", 8, config=config, pooler_type="mean_pooler", proj_type="mlp")
    towers = Towers(clip.eval().requires_grad_(False), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pixels, tokens = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([[5, 6, 7], [8, 9, 2]])
    adapters = Adapters.on(towers, ["visual.proj", "text.proj.2.weight"], (pixels[:1], tokens[:1]), 2, 4.0)
    text = [name for name in adapters.called if name.startswith("text.")]
    assert sum("attention" in name for name in text) == 4
    assert "text.proj.0.weight" in text
    start = moved(adapters.drawn(0))
    with forward_mode(), torch.no_grad():
        (words, _), (tangent, _) = jvp(lambda p: adapters.embed(p, pixels, tokens), (start,), (moved(start, 2),))[:2]
        merged = {
            f"model.{name}": adapters.frozen[name] + 2 * start[f"{name}.lora_B"] @ start[f"{name}.lora_A"]
            for name in adapters.frozen
        }
        expected, _ = functional_call(towers, merged, (pixels, tokens))
    torch.testing.assert_close(words, expected, rtol=1e-4, atol=1e-5)
    assert bool(tangent.any())
