"""A CLIP model that is ready to embed, in whichever scope is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from open_clip import image_transform
from open_clip.utils import to_2tuple
from PIL.Image import Image
from torch import Tensor, nn

from encoders.adapters import DEFAULT_ALPHA, DEFAULT_RANK, Adapters, adapted, adapted_weights
from encoders.digest import encoding_digest, model_digest
from encoders.embedder import Embedder, Parameters, linear_heads
from encoders.model_spec import ModelRefused
from encoders.tokenising import Tokenizer, Tokens, tokenise
from encoders.towers import Tower, Towers

Scope = Literal["heads", "lora", "all"]
_NOT_TRAINED = frozenset({"logit_scale", "logit_bias"})


class LoadedModel:
    """Weights are frozen, in float32 and in evaluation mode (no dropout, fixed batch statistics).

    digest: hex SHA-256 of configuration, preprocessing and weights.
    config, preprocess_config: open_clip's own, as its `open_clip_config.json` would hold them.
    temperature: τ = 1 / exp(logit_scale). logit_bias: b, of a model trained with the sigmoid loss; None of others.
    context_length: in tokens. image_size: (height, width).
    """

    def __init__(
        self, model: nn.Module, config: Mapping[str, Any], preprocess: Mapping[str, Any], tokenizer: Tokenizer
    ) -> None:
        """Raises ModelRefused("unsupported_model") when a tower does not end in one vector of the common width."""
        self.config = dict(config)
        self.preprocess_config = dict(preprocess)
        self.digest = model_digest(config, preprocess, model)
        self.context_length = tokenizer.context_length
        height, width = to_2tuple(cast("Any", model).visual.image_size)  # a ModifiedResNet keeps one number
        self.image_size: tuple[int, int] = (height, width)
        self.temperature = math.exp(-float(cast("Any", model).logit_scale.detach()))
        bias = cast("Any", model).logit_bias
        self.logit_bias = None if bias is None else float(bias.detach())
        self._tokenizer = tokenizer
        self._trainable = [
            name for name, weight in model.named_parameters() if weight.requires_grad and name not in _NOT_TRAINED
        ]
        self._model = model.requires_grad_(False).eval()
        self._towers = Towers(model, preprocess["mean"], preprocess["std"]).to(self.device)
        no_change = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        size, fill = preprocess["size"], preprocess["fill_color"]
        how = {key: preprocess[key] for key in ("interpolation", "resize_mode")}
        self._transform = image_transform(size, is_train=False, fill_color=fill, **how, **no_change)
        self._image, self._text = self._cut_towers()
        self.embed_dim = self._image.embed_dim

    @property
    def encoding_digest(self) -> str:
        """Hex SHA-256 of `digest` and of the versions of what encodes: the name under which features are kept."""
        return encoding_digest(self.digest)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where inputs must be."""
        return next(self._model.parameters()).device

    def prepare_images(self, images: Iterable[Image]) -> Tensor:
        """(n, 3, H, W) uint8 on the CPU: the model's own resizing and cropping of RGB images, before normalisation.

        Nothing is lost: open_clip resizes in 8 bits, and the mean and deviation are applied inside the embedders.
        Images are taken one at a time, so an iterator over large ones never holds two.
        """
        small = [(self._transform(image) * 255).round().to(torch.uint8) for image in images]
        return torch.stack(small) if small else torch.zeros(0, 3, *self.image_size, dtype=torch.uint8)

    def tokenize(self, captions: Sequence[str]) -> Tokens:
        """Token ids (n, context_length) int64 on the CPU, and which captions were cut."""
        return tokenise(self._tokenizer, captions)

    def image_features(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) uint8 → (n, Di) float32: what enters the image head. Detached."""
        with torch.no_grad():
            return self._image.features(pixels)

    def text_features(self, tokens: Tensor) -> Tensor:
        """(n, context_length) → (n, Dt) float32: what enters the text head. Detached."""
        with torch.no_grad():
            return self._text.features(tokens)

    def tower_features(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(image features (n, Di), text features (n, Dt)), float32: what `heads` takes as images and texts."""
        return self.image_features(pixels), self.text_features(tokens)

    def heads(self) -> Embedder:
        """The last linear map of each tower, on `tower_features`.

        A tower without one gets a square head on its embedding, the identity at the start.
        """
        heads = linear_heads(self._image.head(), self._text.head(), self.temperature)
        return replace(heads, logit_bias=self.logit_bias)

    def full(self) -> Embedder:
        """Every trainable weight but those of the logits, on (uint8 pixels, tokens); named as in the state dict."""
        state = self._model.state_dict()
        parameters = {name: state[name].detach().clone() for name in self._trainable}
        return Embedder(parameters, self.temperature, self._embed, self.logit_bias)

    def lora(self, rank: int = DEFAULT_RANK, alpha: float = DEFAULT_ALPHA, seed: int = 0) -> Embedder:
        """Adapters of that rank, scaled by α/rank, on every linear map; on (uint8 pixels, tokens).

        Raises ModelRefused("unsupported_model") when a tower has no linear map.
        """
        cut = (self._image.projection, self._text.projection)
        heads = [projection.weight for projection in cut if projection is not None]
        adapters = Adapters.on(self._towers, heads, self._sample(), rank, alpha)
        return Embedder(adapters.drawn(seed), self.temperature, adapters.embed, self.logit_bias)

    def state_dict_with(
        self, parameters: Parameters, scope: Scope, *, lora_alpha: float = DEFAULT_ALPHA
    ) -> dict[str, Tensor]:
        """open_clip's whole state dict, on the CPU, with the edited parameters of `heads()`, `lora()` or `full()` in
        place; adapters are merged into the weights that they adapt. A "logit_scale" (log 1/τ) and a "logit_bias" beside
        them are kept too.

        Raises ModelRefused("not_foldable") for a changed square head, which the architecture has no place for;
        KeyError or ValueError when the parameters are not this model's.
        """
        if scope == "heads":
            edited = {
                **self._image.restored(parameters["image.weight"], parameters.get("image.bias")),
                **self._text.restored(parameters["text.weight"], parameters.get("text.bias")),
            }
        elif scope == "lora":
            frozen = self._model.state_dict()
            edited = {name: adapted(name, frozen, parameters, lora_alpha) for name in adapted_weights(parameters)}
        else:
            edited = parameters
        state = self._model.state_dict()
        for name in _NOT_TRAINED & parameters.keys():
            state.setdefault(name, state["logit_scale"])  # a bias that was trained where the model came without
            edited = {**edited, name: parameters[name].reshape(state[name].shape)}
        for name, tensor in edited.items():
            if tensor.shape != state[name].shape:
                raise ValueError(f"{name} is {tuple(tensor.shape)}, the model's is {tuple(state[name].shape)}")
        merged = {**state, **edited}
        return {name: tensor.detach().to("cpu", state[name].dtype).contiguous() for name, tensor in merged.items()}

    def _embed(self, parameters: Parameters, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        text, image = self._towers.call(parameters, images, texts)
        return cast("Tensor", text), cast("Tensor", image)

    def _sample(self) -> tuple[Tensor, Tensor]:
        """(pixels, tokens) of one made-up pair."""
        pixels = torch.arange(3 * math.prod(self.image_size), device=self.device) % 251
        tokens = self.tokenize(["a picture"]).ids.to(self.device)
        return pixels.to(torch.uint8).reshape(1, 3, *self.image_size), tokens

    def _cut_towers(self) -> tuple[Tower, Tower]:
        pixels, tokens = self._sample()
        image = Tower.image(self._towers, pixels)
        text = Tower.text(self._towers, tokens)
        if image.embed_dim != text.embed_dim:
            raise ModelRefused(
                "unsupported_model", f"images get {image.embed_dim} numbers, texts {text.embed_dim}", "architecture"
            )
        return image, text
