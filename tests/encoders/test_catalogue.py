"""The names that the HTTP process accepts are those that the installed open_clip lists."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip import list_pretrained

from encoders.catalogue import catalogue
from store.open_clip_config import weights_in

STORED = Path(__file__).parents[2] / "store" / "open_clip_models.json"


def test_the_kept_catalogue_is_the_installed_one() -> None:
    assert json.loads(STORED.read_text()) == catalogue(), (
        "run: .venv/bin/python -m encoders.catalogue > store/open_clip_models.json"
    )


def test_every_pretrained_tag_is_there() -> None:
    stored = json.loads(STORED.read_text())["architectures"]
    assert {(name, tag) for name, entry in stored.items() for tag in entry["pretrained"]} == set(list_pretrained())


def test_models_trained_with_another_loss_are_marked() -> None:
    entries = catalogue()["architectures"]
    assert dict(entries["tiny"]) == {"pretrained": [], "loss": "softmax", "refused": None}
    assert "laion2b_s34b_b79k" in entries["ViT-B-32"]["pretrained"]
    assert entries["ViT-B-32"]["refused"] is None
    assert (entries["ViT-B-16-SigLIP"]["loss"], entries["ViT-B-16-SigLIP"]["refused"]) == ("sigmoid", None)
    assert "captioning" in str(entries["coca_ViT-B-32"]["refused"])


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14", "RN50", "RN101"])
def test_the_weights_of_a_configuration_are_counted_without_building_it(name: str) -> None:
    with torch.device("meta"):
        built = open_clip.CLIP(**open_clip.get_model_config(name))
    weights = sum(parameter.numel() for parameter in built.parameters())
    assert weights_in(open_clip.get_model_config(name)) == pytest.approx(weights, rel=0.03)
