"""An open_clip model configuration that a user wrote: checked by field before anything is built, without open_clip.

open_clip passes parts of it to `from_pretrained` functions that read local paths, or run code from a hub when
told to (`trust_remote_code`). So every field is known, and what names a file or goes to such a function is held
to a plain name. The fields are those of open_clip's own dataclasses; a test holds them against the installed library.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from store.errors import InvalidError

_LARGEST: Final = {"layers": 256, "image_size": 2048, "context_length": 4096, "vocab_size": 2_000_000}
_LARGEST_OTHER: Final = 32_768
_NO_SIZES: Final = frozenset({"init_logit_scale", "init_logit_bias"})  # numbers of the logits, written as -10 too
_MOST_PATCHES: Final = 16_384
_TOKENIZER_OPTIONS: Final = frozenset({"clean", "strip_sep_token"})
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_OWN_VOCABULARY: Final = 49408


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Attention(_Fields):
    """What both towers' blocks may be told."""

    ls_init_value: float | None = None
    final_ln_after_pool: bool = False
    output_tokens: bool = False
    act_kwargs: dict[str, Any] | None = None
    norm_kwargs: dict[str, Any] | None = None
    block_type: str | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False
    mlp_ratio: float = 4.0


class VisionConfig(_Attention):
    """open_clip's `CLIPVisionCfg`."""

    layers: tuple[int, int, int, int] | int = 12
    width: int = 768
    head_width: int = 64
    patch_size: int | None = 16  # null in the published ResNets, which have no patches
    image_size: tuple[int, int] | int = 224
    patch_dropout: float = 0.0
    attentional_pool: bool = False
    attn_pooler_queries: int = 256
    attn_pooler_heads: int = 8
    no_ln_pre: bool = False
    pos_embed_type: str = "learnable"
    pool_type: str = "tok"
    timm_model_name: str | None = None
    timm_model_pretrained: bool = False
    timm_pool: str = "avg"
    timm_proj: str | None = "linear"  # null in published configurations that leave it to the trunk
    timm_proj_bias: bool = False
    timm_drop: float = 0.0
    timm_drop_path: float | None = None


class TextConfig(_Attention):
    """open_clip's `CLIPTextCfg`."""

    context_length: int = 77
    vocab_size: int = 49408
    hf_tokenizer_name: str | None = None
    tokenizer_mode: str | None = None
    tokenizer_kwargs: dict[str, Any] | None = None
    width: int = 512
    heads: int = 8
    layers: int = 12
    embed_cls: bool = False
    pad_id: int = 0
    eos_id: int = 2
    no_causal_mask: bool = False
    pool_type: str = "argmax"
    proj_bias: bool = False
    proj_type: str = "linear"
    hf_model_name: str | None = None
    hf_model_pretrained: bool = True
    hf_proj_type: str = "mlp"
    hf_pooler_type: str = "mean_pooler"


class _Model(_Fields):
    embed_dim: int
    vision_cfg: VisionConfig
    text_cfg: TextConfig
    quick_gelu: bool = False
    custom_text: bool = False
    init_logit_scale: float | None = None
    init_logit_bias: float | None = None
    nonscalar_logit_scale: bool = False
    multimodal_cfg: dict[str, Any] | None = None


_Deviation = Annotated[float, Field(gt=0)]


class _Preprocess(_Fields):
    size: int | tuple[int, int] | None = None  # the image tower's own is used
    mode: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float] | None = None
    std: tuple[_Deviation, _Deviation, _Deviation] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: int = 0


def check_config(
    given: Mapping[str, Any], param: str, refused_fields: Mapping[str, str], timm_models: frozenset[str]
) -> None:
    """Check a bare configuration, or a whole `open_clip_config.json`.

    Args:
        refused_fields: those that belong to models that cannot be scored, each with its reason.

    Raises:
        InvalidError: "invalid_model_config" or "unsupported_architecture"; its `param`, which starts with the one
            given here, names the field.
    """
    prefix, config = param, given
    if "model_cfg" in given:
        prefix, config = f"{param}.model_cfg", given["model_cfg"]
        if unknown := set(given) - {"model_cfg", "preprocess_cfg"}:
            raise _refused(f"{param}.{min(map(str, unknown))}", "no such field", param)
        _check_fields(_Preprocess, given.get("preprocess_cfg", {}), f"{param}.preprocess_cfg", param)
    _check_fields(_Model, config, prefix, param)
    for field, reason in refused_fields.items():
        if config.get(field) is not None:
            raise InvalidError("unsupported_architecture", reason, f"{prefix}.{field}")
    _check_sizes(config, prefix, param)
    _check_names(config, prefix, param, timm_models)


def _check_fields(model: type[_Fields], given: Any, prefix: str, root: str) -> None:
    try:
        model.model_validate_json(json.dumps(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        deep = first["loc"][:1] in (("vision_cfg",), ("text_cfg",))
        where = [str(part) for part in first["loc"][: 2 if deep else 1]]  # beyond the field: pydantic's own words
        message = "no such field" if first["type"] == "extra_forbidden" else first["msg"]
        raise _refused(".".join([prefix, *where]), message, root) from None
    except (TypeError, ValueError, RecursionError):
        raise _refused(prefix, "not a JSON object", root) from None


def _check_sizes(config: Mapping[str, Any], prefix: str, root: str) -> None:
    """Bounds on every whole number, so that building the model cannot hang before its size is known."""
    for group, fields in {"": config, ".vision_cfg": config["vision_cfg"], ".text_cfg": config["text_cfg"]}.items():
        for name, value in fields.items():
            for number in value if isinstance(value, list | tuple) else [value]:
                largest = _LARGEST.get(name, _LARGEST_OTHER)
                if name in _NO_SIZES:
                    continue
                if type(number) is int and not 0 <= number <= largest:
                    raise _refused(f"{prefix}{group}.{name}", f"must lie between 0 and {largest}", root)
    vision = VisionConfig.model_construct(**config["vision_cfg"])
    sides = [vision.image_size] * 2 if isinstance(vision.image_size, int) else vision.image_size
    patch = max(vision.patch_size or _LARGEST_OTHER, 1)
    if (sides[0] // patch) * (sides[1] // patch) > _MOST_PATCHES:
        message = f"cuts the image into more than {_MOST_PATCHES} patches"
        raise _refused(f"{prefix}.vision_cfg.patch_size", message, root)


def _check_names(config: Mapping[str, Any], prefix: str, root: str, timm_models: frozenset[str]) -> None:
    vision, text = config["vision_cfg"], config["text_cfg"]
    trunk = vision.get("timm_model_name")
    if trunk is not None and trunk.partition(".")[0] not in timm_models:
        raise _refused(f"{prefix}.vision_cfg.timm_model_name", f"timm has no model {trunk[:80]!r}", root)
    for name in ("hf_model_name", "hf_tokenizer_name"):
        value = text.get(name)
        if value and not is_hub_repository(value):
            raise _refused(
                f"{prefix}.text_cfg.{name}", "must be the name of a repository on the Hugging Face hub", root
            )
    if unknown := set(text.get("tokenizer_kwargs") or {}) - _TOKENIZER_OPTIONS:
        raise _refused(f"{prefix}.text_cfg.tokenizer_kwargs.{min(unknown)}", "no such field", root)
    own_tokenizer = not text.get("hf_tokenizer_name") and not text.get("hf_model_name")
    if own_tokenizer and text.get("vocab_size", _OWN_VOCABULARY) < _OWN_VOCABULARY:
        raise _refused(f"{prefix}.text_cfg.vocab_size", f"open_clip's tokenizer needs {_OWN_VOCABULARY}", root)
    if text.get("hf_model_name") and not text.get("hf_tokenizer_name"):
        raise _refused(f"{prefix}.text_cfg.hf_tokenizer_name", "a Hugging Face text tower needs its tokenizer", root)


def weights_in(given: Mapping[str, Any]) -> int:
    """About how many weights a configuration that passed `check_config` describes, of the towers that open_clip builds
    itself; those of timm and Hugging Face count as none.

    A transformer's block has 4·w² weights of attention and 2·r·w² of its MLP, r wide; a bottleneck of a ResNet, p wide
    and 4·p out of it, has 17·p².
    """
    config = given.get("model_cfg", given)
    vision = VisionConfig.model_construct(**config["vision_cfg"])
    text = TextConfig.model_construct(**config["text_cfg"])
    width, count = vision.width, 0
    if vision.timm_model_name is None and isinstance(vision.layers, int):
        sides = [vision.image_size] * 2 if isinstance(vision.image_size, int) else vision.image_size
        patch = max(vision.patch_size or 1, 1)
        count += _blocks(width, vision.layers, vision.mlp_ratio)
        count += width * (3 * patch**2 + (sides[0] // patch) * (sides[1] // patch) + config["embed_dim"])
    elif vision.timm_model_name is None and not isinstance(vision.layers, int):
        count += sum(17 * layers * (width << stage) ** 2 for stage, layers in enumerate(vision.layers))
        count += 3 * (32 * width) ** 2 + 32 * width * config["embed_dim"]
    if text.hf_model_name is None:
        count += _blocks(text.width, text.layers, text.mlp_ratio)
        count += text.width * (text.vocab_size + text.context_length + config["embed_dim"])
    return count


def _blocks(width: int, layers: int, mlp_ratio: float) -> int:
    return round(layers * (4 + 2 * mlp_ratio) * width**2)


def hub_names(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a checked configuration fetches from the hub: the field below the configuration, and the repository."""
    prefix, model = ("model_cfg.", config["model_cfg"]) if "model_cfg" in config else ("", config)
    for name in ("hf_model_name", "hf_tokenizer_name"):
        if value := model["text_cfg"].get(name):
            yield f"{prefix}text_cfg.{name}", value


def is_hub_repository(name: str) -> bool:
    """Whether this can name a repository on the hub: never a path, which the same functions would read."""
    return len(name) <= 200 and _HUB_NAME.fullmatch(name) is not None and ".." not in name


def _refused(param: str, message: str, root: str) -> InvalidError:
    where = param.removeprefix(root.rpartition(".")[0] + ".") if "." in root else param
    return InvalidError("invalid_model_config", f"{where}: {message}", param)
