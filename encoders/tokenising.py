"""Captions → token ids, and which captions were too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from torch import Tensor

from encoders.model_spec import ModelRefused


class Tokenizer(Protocol):
    """What open_clip's tokenizers share."""

    context_length: int

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        """(n, context_length) int64."""


@dataclass(frozen=True)
class Tokens:
    """ids: (n, context_length) int64. truncated: (n,) bool, True where the end of the caption was cut off."""

    ids: Tensor
    truncated: Tensor


def build_tokenizer(config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that open_clip would choose. Raises ModelRefused("weights_unavailable")."""
    text = config["text_cfg"]
    context_length = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = dict(text.get("tokenizer_kwargs") or {})
    name = text.get("hf_tokenizer_name")
    tokenizer: Tokenizer
    try:
        if not name:
            tokenizer = SimpleTokenizer(context_length=context_length, **options)
        else:
            mode = text.get("tokenizer_mode")
            tokenizer = HFTokenizer(name, context_length=context_length, tokenizer_mode=mode, **options)
    except Exception as error:  # the hub client's exceptions share no base
        if package := _missing_package(error):
            reason = f"the tokenizer {name} needs the package `{package}`, not installed here"
            raise ModelRefused("unsupported_model", reason, "architecture") from error
        raise ModelRefused(
            "weights_unavailable",
            f"the tokenizer {name} could not be loaded from the Hugging Face hub, nor from its cache on this machine",
            "architecture",
        ) from error
    return tokenizer


def _missing_package(error: Exception) -> str | None:
    """What a tokenizer's files cannot be read without. transformers names it in the words of several errors."""
    named = [package for package in ("sentencepiece", "tiktoken", "protobuf") if package in str(error)]
    return named[0] if named else "transformers" if isinstance(error, ImportError) else None


def tokenise(tokenizer: Tokenizer, captions: Sequence[str]) -> Tokens:
    """Every caption as the model reads it, cut to the context length."""
    texts = [caption.encode("utf-8", "replace").decode() for caption in captions]  # a lone surrogate has no bytes
    if not texts:
        empty = torch.zeros(0, dtype=torch.int64)
        return Tokens(empty.reshape(0, tokenizer.context_length), empty.bool())
    return Tokens(tokenizer(texts).long(), _truncated(tokenizer, texts))


def _truncated(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    context_length = tokenizer.context_length
    if isinstance(tokenizer, HFTokenizer):
        clips = tokenizer.tokenizer_mode == "clips"  # that mode adds three tokens of its own
        rows = tokenizer.tokenizer([tokenizer.clean_fn(text) for text in texts], add_special_tokens=not clips)
        return torch.tensor([len(row) + 3 * clips > context_length for row in rows["input_ids"]])
    # With room for one token more, the last place is taken exactly when the caption needs it; padding is 0.
    return tokenizer(texts, context_length + 1)[:, -1] != 0
