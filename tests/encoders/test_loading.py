"""Which models are loaded, which are refused, and with what words."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import image_transform
from PIL.Image import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import encoders.loading
from encoders.architectures import TINY_CONFIG
from encoders.construction import build
from encoders.digest import model_digest
from encoders.loaded_model import LoadedModel
from encoders.loading import load_model
from encoders.model_spec import Checkpoint, ModelRefused, ModelSpec


def refusal(spec: ModelSpec, **options: Any) -> ModelRefused:
    with pytest.raises(ModelRefused) as caught:
        load_model(spec, **options)
    return caught.value


def changed(**fields: Any) -> dict[str, Any]:
    """`tiny` as an inline configuration, with fields of its towers replaced."""
    towers = {name: {**TINY_CONFIG[name], **fields.pop(name, {})} for name in ("vision_cfg", "text_cfg")}
    return {"embed_dim": 32, **towers, **fields}


def test_the_seed_decides_the_weights_and_disturbs_nobody() -> None:
    before = torch.get_rng_state()
    first = load_model(ModelSpec(changed(), seed=1))
    again = load_model(ModelSpec(dict(reversed(changed().items())), seed=1))
    assert torch.equal(before, torch.get_rng_state())
    assert first is again
    assert first.digest != load_model(ModelSpec("tiny", seed=2)).digest
    assert first.digest == load_model(ModelSpec("tiny", seed=1)).digest
    assert len(first.digest) == 64


def test_a_name_is_built_as_open_clip_builds_it() -> None:
    spec = ModelSpec("ViT-S-32-alt", seed=5)
    ours = load_model(spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        theirs = open_clip.create_model("ViT-S-32-alt").eval()
    state = ours.state_dict_with(ours.full().parameters, "all")
    assert {name: tuple(w.shape) for name, w in state.items()} == {
        name: tuple(w.shape) for name, w in theirs.state_dict().items()
    }
    assert all(torch.equal(state[name], weight) for name, weight in theirs.state_dict().items())
    assert ours.preprocess_config == theirs.visual.preprocess_cfg


def test_an_unknown_architecture_is_answered_with_the_nearest() -> None:
    refused = refusal(ModelSpec("ViT-B/32"))
    assert (refused.code, refused.part) == ("unknown_architecture", "architecture")
    assert "ViT-B-32" in refused.message


def test_an_unknown_tag_is_answered_with_the_known() -> None:
    refused = refusal(ModelSpec("ViT-B-32", "laion9b"))
    assert (refused.code, refused.part) == ("unknown_pretrained", "pretrained")
    assert "laion2b_s34b_b79k" in refused.message
    assert "null" in refusal(ModelSpec("tiny", "laion2b_s34b_b79k")).message


@pytest.mark.parametrize("error", [OSError("no route"), FileNotFoundError("offline"), RuntimeError("checksum")])
def test_an_unreachable_hub_is_said_plainly(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def unreachable(tag: dict[str, Any]) -> str:
        raise error

    monkeypatch.setattr(encoders.loading, "download_pretrained", unreachable)
    refused = refusal(ModelSpec("ViT-B-32", "laion2b_s34b_b79k"))
    assert (refused.code, refused.part) == ("weights_unavailable", "pretrained")
    assert "network" in refused.message


def test_a_bias_says_that_a_model_was_trained_with_the_sigmoid_loss() -> None:
    assert load_model(ModelSpec("tiny")).logit_bias is None
    model = load_model(ModelSpec(changed(init_logit_bias=-10.0)))
    assert model.logit_bias == -10.0
    for embedder in (model.heads(), model.full(), model.lora()):
        assert embedder.logit_bias == -10.0
        assert "logit_bias" not in embedder.parameters
    trained = {"logit_scale": torch.tensor(3.0), "logit_bias": torch.tensor(-7.0)}
    state = model.state_dict_with(model.heads().parameters | trained, "heads")
    assert (float(state["logit_scale"]), float(state["logit_bias"])) == (3.0, -7.0)


@pytest.mark.parametrize("config", ["tiny", changed(init_logit_bias=-10.0)])
def test_a_checkpoint_brings_its_bias_whatever_its_architecture_says(config: Any, tmp_path: Path) -> None:
    state = {**load_model(ModelSpec("tiny", seed=3)).state_dict_with({}, "all"), "logit_bias": torch.tensor([-4.0])}
    save_file(state, tmp_path / "mine.safetensors")
    checkpoint = Checkpoint(str(config), lambda: nullcontext(tmp_path / "mine.safetensors"))
    model = load_model(ModelSpec(config), checkpoint=checkpoint)
    assert model.logit_bias == -4.0
    assert "init_logit_bias" in model.config


def test_another_loss_is_refused_with_its_reason() -> None:
    assert "captioning" in refusal(ModelSpec("coca_ViT-B-32")).message
    assert refusal(ModelSpec(changed(multimodal_cfg={}))).code == "unsupported_model"


def test_a_hugging_face_text_tower_without_its_hub_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries its address for 20 s
    refused = refusal(ModelSpec("roberta-ViT-B-32"))
    assert refused.code in ("weights_unavailable", "unsupported_model")
    assert "roberta-base" in refused.message


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository in the hub's cache that holds a tokenizer, and no line to the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder, commit = tmp_path / "models--somebody--words", "0" * 40
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    absent = folder / ".no_exist" / commit
    absent.mkdir(parents=True)
    (absent / "config.json").touch()  # the hub was asked for it once, and had none
    known = {"<pad>": 0, "<unk>": 1, "a": 2, "red": 3, "square": 4}
    tokenizer = Tokenizer(WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(snapshot / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    (snapshot / "tokenizer_config.json").write_text(json.dumps(said))
    return "somebody/words"


def test_a_tokenizer_of_the_hub_is_taken_from_its_cache_without_a_network(words: str) -> None:
    text = {"vocab_size": 5, "hf_tokenizer_name": words, "tokenizer_kwargs": {"clean": "canonicalize"}}
    model = load_model(ModelSpec(changed(text_cfg=text, init_logit_bias=-10.0)))
    tokens = model.tokenize(["A red, red square!", "a " * 20])
    assert tokens.ids[0].tolist() == [2, 3, 3, 4, *[0] * 12]
    assert tokens.truncated.tolist() == [False, True]
    elsewhere = refusal(ModelSpec(changed(text_cfg={**text, "hf_tokenizer_name": "somebody/sentences"})))
    assert elsewhere.code == "weights_unavailable"
    assert "somebody/sentences" in elsewhere.message
    assert "cache" in elsewhere.message


@pytest.mark.parametrize(
    ("error", "package"),
    [
        (ImportError("No module named 'transformers'"), "transformers"),
        (ImportError("T5Tokenizer requires the SentencePiece library: pip install sentencepiece"), "sentencepiece"),
        (ValueError("Couldn't instantiate the backend tokenizer: you need sentencepiece or tiktoken"), "sentencepiece"),
    ],
)
def test_what_a_tokenizer_lacks_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception, package: str) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("encoders.tokenising.HFTokenizer", broken)
    refused = refusal(ModelSpec(changed(text_cfg={"hf_tokenizer_name": "somebody/words"}), seed=9))
    assert refused.code == "unsupported_model"
    assert f"`{package}`" in refused.message


def test_size_is_known_before_memory_is_taken() -> None:
    refused = refusal(ModelSpec("EVA02-E-14"), max_parameters=1_000_000_000)
    assert (refused.code, refused.part) == ("model_too_large", "architecture")
    assert "4,704," in refused.message


def test_a_name_of_the_hub_is_never_a_local_path() -> None:
    for config in (changed(text_cfg={"hf_model_name": "/etc"}), changed(text_cfg={"hf_tokenizer_name": "encoders"})):
        refused = refusal(ModelSpec(config))
        assert refused.code == "invalid_model_config"
        assert refused.part == "architecture"
        assert refused.path.startswith("text_cfg.hf_")


@pytest.mark.parametrize(
    "config",
    [
        changed(vision_cfg={"patch_size": 0}),
        changed(text_cfg={"heads": 7}),
        changed(vision_cfg={"pool_type": "both"}),
    ],
)
def test_what_open_clip_cannot_build_is_refused(config: dict[str, Any]) -> None:
    refused = refusal(ModelSpec(config))
    assert (refused.code, refused.part) == ("invalid_model_config", "architecture")


@pytest.mark.parametrize(
    "config", [changed(vision_cfg={"pool_type": "none"}), changed(text_cfg={"width": 16, "proj_type": "none"})]
)
def test_towers_that_do_not_meet_are_refused(config: dict[str, Any]) -> None:
    assert refusal(ModelSpec(config)).code == "unsupported_model"


def test_published_preprocessing_is_used() -> None:
    published = {"model_cfg": changed(), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    model = load_model(ModelSpec(published))
    assert model.preprocess_config["mean"] == [0.5] * 3
    assert model.digest != load_model(ModelSpec("tiny")).digest


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_a_checkpoint_is_prepared_for_as_open_clip_would(
    mine: Checkpoint, pictures: list[Image], resize_mode: str
) -> None:
    """Another mean, deviation, way of resizing, interpolation and filling than the default."""
    said = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bilinear",
        "resize_mode": resize_mode,
        "fill_color": 7,
    }
    model = load_model(ModelSpec({"model_cfg": changed(), "preprocess_cfg": said}), checkpoint=mine)
    plain = load_model(ModelSpec("tiny"), checkpoint=mine)
    reference = image_transform(32, is_train=False, **said)
    theirs = torch.stack([reference(picture) for picture in pictures])
    pixels = model.prepare_images(pictures)
    torch.testing.assert_close(model._towers.normalise(pixels), theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model.image_features(pixels), plain.image_features(plain.prepare_images(pictures)))
    assert model.digest != plain.digest


def test_the_digest_covers_every_weight() -> None:
    module = build(TINY_CONFIG, 0, 10**9)
    digests = {model_digest(TINY_CONFIG, {}, module)}
    for weight in module.state_dict().values():
        weight += 1e-3
        digests.add(model_digest(TINY_CONFIG, {}, module))
    assert len(digests) == 1 + len(module.state_dict())


@pytest.fixture
def mine(tmp_path: Path) -> Checkpoint:
    """A checkpoint of `tiny`."""
    source = load_model(ModelSpec("tiny", seed=9))
    save_file(source.state_dict_with(source.full().parameters, "all"), tmp_path / "mine.safetensors")
    return Checkpoint("sha256:one", lambda: nullcontext(tmp_path / "mine.safetensors"))


def test_a_checkpoint_is_loaded_once(mine: Checkpoint) -> None:
    loaded = load_model(ModelSpec("tiny"), checkpoint=mine)
    assert loaded.digest == load_model(ModelSpec("tiny", seed=9)).digest
    assert load_model(ModelSpec("tiny"), checkpoint=mine) is loaded
    assert load_model(ModelSpec("tiny"), checkpoint=replace(mine, digest="sha256:two")) is not loaded


def test_a_checkpoint_that_does_not_fit_is_refused(mine: Checkpoint) -> None:
    refused = refusal(ModelSpec(changed(vision_cfg={"layers": 2})), checkpoint=mine)
    assert refused.code == "weights_mismatch"
    assert "visual.transformer.resblocks.2" in refused.message
    with mine.local_path() as path:
        state = load_file(path)
        state["logit_scale"] = torch.tensor(math.nan)
        save_file(state, path)
        assert "not finite" in refusal(ModelSpec("tiny"), checkpoint=replace(mine, digest="nan")).message
        path.write_bytes(b"garbage")
    assert refusal(ModelSpec("tiny"), checkpoint=replace(mine, digest="garbage")).code == "weights_mismatch"


def test_weights_keep_the_activation_they_were_trained_with(
    monkeypatch: pytest.MonkeyPatch, tiny: LoadedModel, tmp_path: Path
) -> None:
    save_file(tiny.state_dict_with(tiny.full().parameters, "all"), tmp_path / "w.safetensors")
    tag = {"hf_hub": "somebody/tiny", "quick_gelu": True, "mean": (0.5, 0.5, 0.5)}
    monkeypatch.setattr(encoders.loading, "get_pretrained_cfg", lambda name, pretrained: tag)
    monkeypatch.setattr(encoders.loading, "download_pretrained", lambda tag: str(tmp_path / "w.safetensors"))
    loaded = load_model(ModelSpec("tiny", "openai"))
    assert loaded.config["quick_gelu"] is True
    assert loaded.preprocess_config["mean"] == (0.5, 0.5, 0.5)
    assert loaded.digest != tiny.digest


def test_two_models_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_model(ModelSpec("tiny", seed=21))
    load_model(ModelSpec("tiny", seed=22))
    assert load_model(ModelSpec("tiny", seed=21)) is first
    load_model(ModelSpec("tiny", seed=23))
    load_model(ModelSpec("tiny", seed=24))
    assert load_model(ModelSpec("tiny", seed=21)) is not first
