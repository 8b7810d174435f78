"""Hugging Face text towers, as far as they can be tried without their hub."""

from __future__ import annotations

import pytest
import torch
from open_clip import CLIP, CustomTextCLIP
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

from encoders.projection import Projection, text_projection
from encoders.towers import Tower, Towers


class Pretend(HFTextEncoder):  # type: ignore[misc]
    """The class that open_clip wraps around a language model, with a bag of words in its place."""

    def __init__(self, proj: nn.Module) -> None:
        nn.Module.__init__(self)
        self.words = nn.EmbeddingBag(50, 12)
        self.proj = proj

    def forward(self, tokens: Tensor) -> Tensor:
        embedding: Tensor = self.proj(self.words(tokens))
        return embedding


def cut(proj: nn.Module) -> Tower:
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    model = CustomTextCLIP(8, vision, {"width": 16, "heads": 2, "layers": 1})
    model.text = Pretend(proj)
    towers = Towers(model.eval(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Tower.text(towers, torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize(
    ("proj", "expected"),
    [
        (nn.Linear(12, 8, bias=False), Projection("text.proj.weight", None, input_first=False)),
        (
            nn.Sequential(nn.Linear(12, 10, bias=False), nn.GELU(), nn.Linear(10, 8)),
            Projection("text.proj.2.weight", "text.proj.2.bias", input_first=False),
        ),
        (nn.Identity(), None),
        (nn.Sequential(nn.Linear(12, 8), nn.Tanh()), None),  # not the last thing that happens: found, tried, given up
    ],
)
def test_the_head_of_a_hugging_face_text_tower(proj: nn.Module, expected: Projection | None) -> None:
    tower = cut(proj)
    assert tower.projection == expected
    tokens = torch.tensor([[4, 5], [6, 7]])
    with torch.no_grad():
        embedding = nn.functional.linear(tower.features(tokens), *tower.head())
        torch.testing.assert_close(embedding, tower.encode({}, tokens))


def test_clip_keeps_its_text_head_at_the_top() -> None:
    text = {"width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    assert text_projection(CLIP(8, vision, text)) == Projection("text_projection", None, input_first=True)
    biased = CLIP(8, vision, {**text, "proj_bias": True})
    assert text_projection(biased) == Projection("text_projection.weight", "text_projection.bias", input_first=False)
    assert text_projection(CLIP(8, vision, {**text, "proj_type": "none"})) is None
