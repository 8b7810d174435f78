"""An open_clip model configuration that a user wrote: checked by field before anything is built.

open_clip passes parts of it to `from_pretrained` functions that read local paths, or run code from a hub when
told to (`trust_remote_code`). So every field is known, and what names a file or goes to such a function is held
to a plain name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import timm
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from pydantic import ConfigDict, PositiveFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from encoders.model_spec import ModelRefused

_PARAM: Final = "model.architecture"
_FIELDS: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_VisionConfig: Any = dataclass(CLIPVisionCfg, config=_FIELDS)
_TextConfig: Any = dataclass(CLIPTextCfg, config=_FIELDS)


@dataclass(config=_FIELDS)
class _Preprocess:
    size: int | tuple[int, int] | None = None  # the image tower's own is used
    mode: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: int = 0


@dataclass(config=_FIELDS)
class _Model:
    embed_dim: int
    vision_cfg: _VisionConfig
    text_cfg: _TextConfig
    quick_gelu: bool = False
    custom_text: bool = False
    init_logit_scale: float | None = None
    init_logit_bias: float | None = None
    nonscalar_logit_scale: bool = False
    multimodal_cfg: dict[str, Any] | None = None


_MODEL: Final = TypeAdapter[Any](_Model)
_PREPROCESS: Final = TypeAdapter[Any](_Preprocess)

_LARGEST: Final = {"layers": 256, "image_size": 2048, "context_length": 4096, "vocab_size": 2_000_000}
_LARGEST_OTHER: Final = 32_768
_MOST_PATCHES: Final = 16_384
_TOKENIZER_OPTIONS: Final = frozenset({"clean", "strip_sep_token"})
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_OWN_VOCABULARY: Final = 49408


def validated(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model configuration, preprocessing) of a bare configuration or a whole `open_clip_config.json`.

    Raises ModelRefused("invalid_model_config") naming the field.
    """
    preprocess: dict[str, Any] = {}
    prefix = _PARAM
    if "model_cfg" in given:
        prefix = f"{_PARAM}.model_cfg"
        if unknown := set(given) - {"model_cfg", "preprocess_cfg"}:
            raise _refused(f"{_PARAM}.{min(map(str, unknown))}", "no such field")
        preprocess = _checked(_PREPROCESS, given.get("preprocess_cfg", {}), f"{_PARAM}.preprocess_cfg")
        given = given["model_cfg"]
    config = _checked(_MODEL, given, prefix)
    _check_sizes(config, prefix)
    _check_names(config, prefix)
    return config, preprocess


def _checked(adapter: TypeAdapter[Any], given: Any, prefix: str) -> dict[str, Any]:
    """`given` as plain JSON, when its fields are known and of the right kind."""
    try:
        text = json.dumps(given, default=dict)
        adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        deep = first["loc"][:1] in (("vision_cfg",), ("text_cfg",))
        where = [str(part) for part in first["loc"][: 2 if deep else 1]]  # beyond the field: pydantic's own words
        message = "no such field" if first["type"].startswith(("unexpected", "extra")) else first["msg"]
        raise _refused(".".join([prefix, *where]), message) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused(prefix, "not a JSON object") from error
    plain: dict[str, Any] = json.loads(text)
    return plain


def _check_sizes(config: Mapping[str, Any], prefix: str) -> None:
    """Bounds on every whole number, so that building the model cannot hang before its size is known."""
    for group, fields in {"": config, ".vision_cfg": config["vision_cfg"], ".text_cfg": config["text_cfg"]}.items():
        for name, value in fields.items():
            for number in value if isinstance(value, list) else [value]:
                largest = _LARGEST.get(name, _LARGEST_OTHER)
                if type(number) is int and not 0 <= number <= largest:
                    raise _refused(f"{prefix}{group}.{name}", f"must lie between 0 and {largest}")
    vision = CLIPVisionCfg(**config["vision_cfg"])
    sides = vision.image_size if isinstance(vision.image_size, list) else [vision.image_size] * 2
    if (sides[0] // max(vision.patch_size, 1)) * (sides[1] // max(vision.patch_size, 1)) > _MOST_PATCHES:
        raise _refused(f"{prefix}.vision_cfg.patch_size", f"cuts the image into more than {_MOST_PATCHES} patches")


def _check_names(config: Mapping[str, Any], prefix: str) -> None:
    vision, text = config["vision_cfg"], config["text_cfg"]
    trunk = vision.get("timm_model_name")
    if trunk is not None and not timm.is_model(trunk):
        raise _refused(f"{prefix}.vision_cfg.timm_model_name", f"timm has no model {trunk[:80]!r}")
    for name in ("hf_model_name", "hf_tokenizer_name"):
        value = text.get(name)
        if value and (not _HUB_NAME.fullmatch(value) or ".." in value or Path(value).exists()):
            raise _refused(f"{prefix}.text_cfg.{name}", "must be the name of a repository on the Hugging Face hub")
    if unknown := set(text.get("tokenizer_kwargs") or {}) - _TOKENIZER_OPTIONS:
        raise _refused(f"{prefix}.text_cfg.tokenizer_kwargs.{min(unknown)}", "no such field")
    own_tokenizer = not text.get("hf_tokenizer_name") and not text.get("hf_model_name")
    if own_tokenizer and text.get("vocab_size", _OWN_VOCABULARY) < _OWN_VOCABULARY:
        raise _refused(f"{prefix}.text_cfg.vocab_size", f"open_clip's tokenizer needs {_OWN_VOCABULARY}")
    if text.get("hf_model_name") and not text.get("hf_tokenizer_name"):
        raise _refused(f"{prefix}.text_cfg.hf_tokenizer_name", "a Hugging Face text tower needs its tokenizer")


def _refused(param: str, message: str) -> ModelRefused:
    return ModelRefused("invalid_model_config", f"{param.removeprefix('model.')}: {message}", param)
