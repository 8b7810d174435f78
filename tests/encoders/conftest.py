"""Small models and small pictures, made once for the whole room."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the libraries say while they are imported is theirs
    import open_clip  # noqa: F401
    import timm  # noqa: F401
    import torch._decomp.decompositions_for_jvp  # loaded by the first jvp; scripts what PyTorch now deprecates

from encoders.loaded_model import LoadedModel
from encoders.loading import load_model
from encoders.model_spec import ModelSpec

torch.set_num_threads(1)

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
TIMM = {"timm_model_name": "test_vit", "image_size": 160}

CONFIGS: dict[str, Any] = {
    "tiny": "tiny",
    "resnet": {"embed_dim": 24, "vision_cfg": RESNET, "text_cfg": TEXT, "quick_gelu": True},
    "timm, linear head": {"embed_dim": 24, "vision_cfg": {**TIMM, "timm_pool": "avg"}, "text_cfg": TEXT},
    "timm, MLP head": {
        "embed_dim": 24,
        "vision_cfg": {**TIMM, "timm_pool": "avg", "timm_proj": "mlp", "timm_proj_bias": True},
        "text_cfg": TEXT,
    },
    "timm, the trunk's classifier": {
        "embed_dim": 24,
        "vision_cfg": {**TIMM, "timm_pool": "avg", "timm_proj": ""},
        "text_cfg": TEXT,
    },
    "text tower of its own, biased head, patch dropout": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {**VISION, "patch_dropout": 0.5},
        "text_cfg": {**TEXT, "proj_bias": True, "no_causal_mask": True},
    },
    "as SigLIP": {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {**TIMM, "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {**TEXT, "proj_bias": True, "no_causal_mask": True, "pool_type": "last"},
    },
    "no text head": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "proj_type": "none"},
    },
}


@pytest.fixture(scope="session")
def configs() -> dict[str, Any]:
    """Every kind of tower that can be built without a hub."""
    return CONFIGS


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    return load_model(ModelSpec("tiny"))


@pytest.fixture(scope="session", params=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> LoadedModel:
    """Each kind of tower in turn."""
    return load_model(ModelSpec(CONFIGS[request.param], seed=3))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Two RGB pictures of other sizes than any model's."""
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, size=(*size, 3), dtype=np.uint8)) for size in ((90, 70), (48, 131))
    ]


@pytest.fixture(scope="session")
def forward_mode() -> Callable[[], AbstractContextManager[None]]:
    """What PyTorch needs before it differentiates attention forwards (the room `ecif` has its own)."""

    @contextmanager
    def context() -> Iterator[None]:
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(before)

    return context
