"""Every kind of open_clip tower, cut into features and head, and put together again."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL.Image import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.func import hessian, jvp, vjp, vmap

from encoders.embedder import square_heads
from encoders.loaded_model import LoadedModel
from encoders.loading import load_model
from encoders.model_spec import ModelRefused, ModelSpec

CAPTIONS = ["a red square", "two dogs", "a handwritten seven, seen from very far away"]

Pairs = tuple[Tensor, Tensor]


def pairs(model: LoadedModel, pictures: list[Image]) -> Pairs:
    """Two prepared pictures and three captions."""
    return model.prepare_images(pictures), model.tokenize(CAPTIONS).ids


def as_open_clip_has_it(model: LoadedModel, folder: Path, state: dict[str, Tensor]) -> Any:
    """(model, its own preprocessing), loaded by open_clip from a published kind of folder."""
    described = {"model_cfg": model.config, "preprocess_cfg": model.preprocess_config}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    save_file(state, folder / "open_clip_model.safetensors")
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return loaded.eval(), preprocess


def test_heads_and_full_give_what_open_clip_gives(model: LoadedModel, pictures: list[Image], tmp_path: Path) -> None:
    state = model.state_dict_with(model.full().parameters, "all")
    theirs, preprocess = as_open_clip_has_it(model, tmp_path, state)
    pixels, tokens = pairs(model, pictures)
    with torch.no_grad():
        expected_images = theirs.encode_image(torch.stack([preprocess(picture) for picture in pictures]))
        expected_texts = theirs.encode_text(tokens)

    full, heads = model.full(), model.heads()
    for texts, images in (
        full(full.parameters, pixels, tokens),
        heads(heads.parameters, *model.tower_features(pixels, tokens)),
    ):
        torch.testing.assert_close(images, expected_images, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(texts, expected_texts, rtol=1e-4, atol=1e-5)
    assert expected_images.shape == (2, model.embed_dim)


def test_pixels_are_open_clip_s_own_to_the_last_bit_that_counts(model: LoadedModel, pictures: list[Image]) -> None:
    preprocess = open_clip.image_transform(
        model.preprocess_config["size"],
        is_train=False,
        mean=model.preprocess_config["mean"],
        std=model.preprocess_config["std"],
    )
    pixels = model.prepare_images(pictures)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (2, 3, *model.image_size)
    expected = torch.stack([preprocess(picture) for picture in pictures])
    torch.testing.assert_close(model._towers.normalise(pixels), expected, rtol=0, atol=1e-6)


def test_an_edited_head_survives_the_way_through_open_clip(
    model: LoadedModel, pictures: list[Image], tmp_path: Path
) -> None:
    heads = model.heads()
    edited = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in heads.parameters.items()}
    pixels, tokens = pairs(model, pictures)
    square = {"text": "proj_type" in model.config["text_cfg"], "image": "map" in model.config["vision_cfg"].values()}
    for tower in (tower for tower, there in square.items() if there):  # nowhere to keep a head of it
        with pytest.raises(ModelRefused) as refusal:
            model.state_dict_with(edited, "heads")
        assert (refusal.value.code, refusal.value.part) == ("not_foldable", "scope")
        edited[f"{tower}.weight"] = heads.parameters[f"{tower}.weight"]
    theirs, _ = as_open_clip_has_it(model, tmp_path, model.state_dict_with(edited, "heads"))
    texts, images = heads(edited, *model.tower_features(pixels, tokens))
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode_text(tokens), texts, rtol=1e-4, atol=1e-5)
        theirs_images = theirs.encode_image(model._towers.normalise(pixels))
        torch.testing.assert_close(theirs_images, images, rtol=1e-4, atol=1e-5)


def test_each_tower_is_cut_where_its_last_linear_map_begins(configs: dict[str, Any]) -> None:
    def widths(name: str) -> dict[str, tuple[int, ...]]:
        heads = load_model(ModelSpec(configs[name], seed=3)).heads()
        return {key: tuple(weight.shape) for key, weight in heads.parameters.items()}

    assert widths("tiny") == {"image.weight": (32, 64), "text.weight": (32, 64)}
    assert widths("resnet")["image.weight"] == (24, 256)
    assert widths("resnet")["image.bias"] == (24,)
    assert widths("timm, linear head")["image.weight"] == (24, 64)
    assert widths("timm, MLP head")["image.weight"] == (24, 48)
    assert widths("timm, the trunk's classifier")["image.bias"] == (24,)
    assert widths("text tower of its own, biased head, patch dropout")["text.bias"] == (24,)
    assert widths("no text head")["text.weight"] == (16, 16)  # square, on the embedding


def test_the_full_parameters_are_all_but_the_temperature(tiny: LoadedModel) -> None:
    parameters = tiny.full().parameters
    assert "logit_scale" not in parameters
    assert sum(weight.numel() for weight in parameters.values()) == 3_348_416
    assert tiny.temperature == pytest.approx(0.07)
    assert (tiny.context_length, tiny.image_size, tiny.embed_dim) == (16, (32, 32), 32)


def test_changing_an_embedder_s_parameters_leaves_the_model_alone(tiny: LoadedModel) -> None:
    for embedder in (tiny.full(), tiny.heads()):
        for weight in embedder.parameters.values():
            weight.zero_()
    assert all(bool(weight.any()) for weight in tiny.heads().parameters.values())
    assert bool(tiny.full().parameters["visual.conv1.weight"].any())


def test_the_full_embedder_differentiates_forwards_and_backwards(
    tiny: LoadedModel, pictures: list[Image], forward_mode: Callable[[], AbstractContextManager[None]]
) -> None:
    full = tiny.full()
    pixels, tokens = pairs(tiny, pictures)
    parameters = {name: weight.double() for name, weight in full.parameters.items()}
    direction = {name: torch.randn_like(weight) for name, weight in parameters.items()}

    def embed(weights: dict[str, Tensor]) -> Pairs:
        return full(weights, pixels, tokens)

    with forward_mode():
        outputs, pushed = jvp(embed, (parameters,), (direction,))[:2]
        _, pull = vjp(embed, parameters)[:2]
        cotangents = tuple(torch.randn_like(output) for output in outputs)
        (pulled,) = pull(cotangents)
        step = 1e-6
        ahead, behind = (
            embed({name: weight + sign * step * direction[name] for name, weight in parameters.items()})
            for sign in (1, -1)
        )
    for after, before, tangent in zip(ahead, behind, pushed, strict=True):
        torch.testing.assert_close((after - before) / (2 * step), tangent, rtol=1e-4, atol=1e-4)
    forwards = sum((tangent * cotangent).sum() for tangent, cotangent in zip(pushed, cotangents, strict=True))
    backwards = sum((pulled[name] * direction[name]).sum() for name in parameters)
    torch.testing.assert_close(forwards, backwards)


def test_forward_mode_passes_every_kind_of_tower(
    model: LoadedModel, pictures: list[Image], forward_mode: Callable[[], AbstractContextManager[None]]
) -> None:
    full = model.full()
    pixels, tokens = pairs(model, pictures)
    direction = {name: torch.ones_like(weight) for name, weight in full.parameters.items()}
    with forward_mode():
        _, pushed = jvp(lambda weights: full(weights, pixels, tokens), (full.parameters,), (direction,))[:2]
    assert all(bool(tangent.isfinite().all()) and bool(tangent.any()) for tangent in pushed)


def test_heads_work_under_vmap(tiny: LoadedModel, pictures: list[Image]) -> None:
    heads = tiny.heads()
    features = tiny.tower_features(*pairs(tiny, pictures))
    many = {name: torch.stack([weight, 2 * weight]) for name, weight in heads.parameters.items()}
    texts, images = vmap(heads.embed, in_dims=(0, None, None))(many, *features)
    torch.testing.assert_close(texts[1], 2 * texts[0])
    torch.testing.assert_close(images[1], 2 * images[0])


def test_heads_have_a_hessian() -> None:
    heads = square_heads(3, 3)
    images, texts = torch.randn(4, 3), torch.randn(4, 3)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        text_embeddings, image_embeddings = heads(weights, images, texts)
        return (text_embeddings * image_embeddings).sum()

    across = hessian(loss)(heads.parameters)["image.weight"]["text.weight"]
    expected = torch.einsum("ij,nk,nl->ikjl", torch.eye(3), images, texts)
    torch.testing.assert_close(across, expected)


def test_features_may_be_trained_on(tiny: LoadedModel, pictures: list[Image]) -> None:
    heads = tiny.heads()
    weights = {name: weight.requires_grad_() for name, weight in heads.parameters.items()}
    texts, _ = heads(weights, *tiny.tower_features(*pairs(tiny, pictures)))
    texts.sum().backward()
    assert weights["text.weight"].grad is not None


def test_captions_that_were_cut_are_known(tiny: LoadedModel) -> None:
    fits, longer = " ".join(["dog"] * 14), " ".join(["dog"] * 15)
    tokens = tiny.tokenize([fits, longer, "\ud800 half a character", ""])
    assert tokens.ids.shape == (4, 16)
    assert tokens.ids.dtype == torch.int64
    assert tokens.truncated.tolist() == [False, True, False, False]


def test_nothing_is_something_too(tiny: LoadedModel) -> None:
    assert tiny.prepare_images([]).shape == (0, 3, 32, 32)
    assert tiny.tokenize([]).ids.shape == (0, 16)
    assert tiny.tokenize([]).truncated.shape == (0,)


def test_parameters_of_another_model_are_an_error(tiny: LoadedModel) -> None:
    with pytest.raises(ValueError, match=r"visual\.proj"):
        tiny.state_dict_with({"image.weight": torch.eye(3), "text.weight": torch.eye(3)}, "heads")
    with pytest.raises(KeyError):
        tiny.state_dict_with({"layer": torch.eye(3)}, "all")
