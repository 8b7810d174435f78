"""Models that a repository of the Hugging Face hub holds whole, as open_clip has them: configuration and weights."""

from __future__ import annotations

import json
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

from open_clip.pretrained import download_pretrained_from_hf

from encoders.model_spec import Checkpoint, ModelRefused

_PARAM = "model.architecture"


@lru_cache(maxsize=4)  # one process sees one state of a repository, whatever is pushed meanwhile
def from_hub(repository: str) -> tuple[dict[str, Any], Checkpoint]:
    """(its `open_clip_config.json`, not yet checked; its weights), downloaded or found in the hub's cache.

    Raises ModelRefused (weights_unavailable, invalid_model_config).
    """
    try:
        said = Path(download_pretrained_from_hf(repository, "open_clip_config.json")).read_text(encoding="utf-8")
        weights = Path(download_pretrained_from_hf(repository))
    except Exception as error:  # open_clip lets each hub's and each transport's own exceptions through
        raise ModelRefused(
            "weights_unavailable",
            f"{repository} could not be read from the Hugging Face hub: is there a network, and is it a public "
            "repository with an `open_clip_config.json` and weights?",
            _PARAM,
        ) from error
    try:
        config = json.loads(said)
        whole = {name: config[name] for name in ("model_cfg", "preprocess_cfg") if name in config}
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelRefused(
            "invalid_model_config", f"{repository}: its `open_clip_config.json` is no JSON object", _PARAM
        ) from error
    if "model_cfg" not in whole:
        raise ModelRefused(
            "invalid_model_config", f"{repository}: its `open_clip_config.json` holds no `model_cfg`", _PARAM
        )
    # The path lies below the commit that it belongs to.
    return whole, Checkpoint(str(weights), lambda: nullcontext(weights))
