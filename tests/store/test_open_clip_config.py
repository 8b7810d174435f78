"""Configurations that users write: what is refused, by which field, and that the fields are open_clip's."""

import json
import math
from typing import Any

import pytest
from open_clip import get_model_config, list_models
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from pydantic import TypeAdapter

from encoders.architectures import TINY_CONFIG
from store.catalogue import check_architecture
from store.errors import InvalidError
from store.open_clip_config import TextConfig, VisionConfig


def changed(**fields: Any) -> dict[str, Any]:
    """`tiny` as an inline configuration, with fields of its towers replaced."""
    towers = {name: {**TINY_CONFIG[name], **fields.pop(name, {})} for name in ("vision_cfg", "text_cfg")}
    return {"embed_dim": 32, **towers, **fields}


def fields_of(made: Any) -> dict[str, Any]:
    return {
        name: {key: told for key, told in field.items() if key not in ("title", "default")}
        for name, field in TypeAdapter(made).json_schema()["properties"].items()
    }


@pytest.mark.parametrize(("ours", "theirs"), [(VisionConfig, CLIPVisionCfg), (TextConfig, CLIPTextCfg)])
def test_the_fields_are_those_of_the_installed_open_clip(ours: Any, theirs: Any) -> None:
    found, expected = fields_of(ours), fields_of(theirs)
    assert found.keys() == expected.keys()
    null = ("patch_size", "timm_proj", "act_kwargs", "norm_kwargs")  # published configurations hold null there
    for name, field in expected.items():
        if name not in null:
            assert found[name] == field, name


def test_every_published_configuration_passes_unless_it_is_refused_by_name() -> None:
    passed = 0
    for name in list_models():
        config = json.loads(json.dumps(get_model_config(name)))
        told: list[tuple[str, str | None]] = []
        for asked in (name, config):
            try:
                check_architecture(asked)
                told.append(None)
            except InvalidError as error:
                told.append((error.code, error.message.removeprefix(f"{name}: ")))
        assert told[0] == told[1], name
        passed += told[0] is None
    assert passed > 100


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"embed_dim": 32}, "vision_cfg"),
        (changed(colour=1), "colour"),
        (changed(vision_cfg={"widht": 64}), "vision_cfg.widht"),
        (changed(vision_cfg={"layers": "many"}), "vision_cfg.layers"),
        (changed(vision_cfg={"layers": 10**9}), "vision_cfg.layers"),
        (changed(vision_cfg={"image_size": 2048, "patch_size": 1}), "vision_cfg.patch_size"),
        (changed(vision_cfg={"timm_model_name": "local-dir:/etc"}), "vision_cfg.timm_model_name"),
        (changed(vision_cfg={"timm_model_name": "vit_enormous"}), "vision_cfg.timm_model_name"),
        (changed(text_cfg={"hf_model_name": "/etc"}), "text_cfg.hf_model_name"),
        (changed(text_cfg={"hf_tokenizer_name": "../encoders"}), "text_cfg.hf_tokenizer_name"),
        (
            changed(text_cfg={"tokenizer_kwargs": {"trust_remote_code": True}}),
            "text_cfg.tokenizer_kwargs.trust_remote_code",
        ),
        (changed(text_cfg={"vocab_size": 100}), "text_cfg.vocab_size"),
        (changed(text_cfg={"hf_model_name": "roberta-base"}), "text_cfg.hf_tokenizer_name"),
        (changed(embed_dim=math.nan), "embed_dim"),
        (changed(multimodal_cfg={}), "multimodal_cfg"),
        ({"model_cfg": changed(), "preprocess_cfg": {"std": [0.0, 1.0, 1.0]}}, "preprocess_cfg.std"),
        ({"model_cfg": changed(), "preprocess_cfg": None}, "preprocess_cfg"),
        ({"model_cfg": changed(), "weights": "x"}, "weights"),
        ({"model_cfg": [1]}, "model_cfg"),
        ({"model_cfg": changed(vision_cfg={"layers": -1})}, "model_cfg.vision_cfg.layers"),
        ({}, "embed_dim"),
    ],
)
def test_a_wrong_field_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_architecture(config)
    assert caught.value.code == ("unsupported_architecture" if field == "multimodal_cfg" else "invalid_model_config")
    assert caught.value.param == f"model.architecture.{field}"


def test_the_field_of_another_form_is_named_by_its_own_path() -> None:
    with pytest.raises(InvalidError, match=r"architecture\.vision_cfg\.layers") as caught:
        check_architecture(changed(vision_cfg={"layers": 1000}), "architecture")
    assert caught.value.param == "architecture.vision_cfg.layers"
