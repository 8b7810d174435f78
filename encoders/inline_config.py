"""An open_clip model configuration as a JSON object, in place of a name.

Its fields were checked when it came in (`store/open_clip_config.py`). What only the machine that loads it can tell is
checked here: open_clip passes a name of the hub to `from_pretrained` functions, which would read a local path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoders.model_spec import ModelRefused

_PARAM = "model.architecture"


def split(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model configuration, preprocessing) of a bare configuration or a whole `open_clip_config.json`.

    Raises ModelRefused("invalid_model_config") where a name of the hub is that of a local file too.
    """
    whole = "model_cfg" in given
    config = dict(given["model_cfg"] if whole else given)
    for name in ("hf_model_name", "hf_tokenizer_name"):
        value = config["text_cfg"].get(name)
        if value and Path(value).exists():
            where = f"{_PARAM}{'.model_cfg' if whole else ''}.text_cfg.{name}"
            raise ModelRefused("invalid_model_config", f"{name}: a file of this machine has that name", where)
    return config, dict(given.get("preprocess_cfg") or {}) if whole else {}
