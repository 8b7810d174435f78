"""Models that a repository of the Hugging Face hub holds whole, as open_clip has them: configuration and weights.

Anybody who may submit a job names a repository, so what is fetched is bounded: in size before the first byte, in sum by
what was used longest ago.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import HfApi, constants, hf_hub_download
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from encoders.model_spec import Checkpoint, ModelRefused

_WEIGHTS: Final = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)  # the first that there is, as open_clip chooses
_MOST_CONFIG: Final = 1 << 20  # bytes
_USED: Final = ".used-by-ecif"  # in the folder of a repository: that it is ours to delete, and when it was used last
_NO_TOKEN: Final = constants.HF_HUB_DISABLE_IMPLICIT_TOKEN  # as the environment says
_BUSY_SECONDS: Final = 600.0  # what was used so lately may still be read by another process

_seen: dict[str, tuple[dict[str, Any], Path]] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class HubLimits:
    """Bytes of one repository's configuration and weights, and of all that this service keeps of such repositories."""

    model_bytes: int
    cache_bytes: int


def use_token(allowed: bool) -> None:
    """Say whether this process may show the hub the token of its environment or of its user's home, in every request:
    for repositories, tags, text towers and tokenizers. What it lets in is then in the reach of all who submit jobs.
    """
    constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = _NO_TOKEN or not allowed


def from_hub(repository: str, limits: HubLimits) -> tuple[dict[str, Any], Checkpoint]:
    """(its `open_clip_config.json`, not yet checked; its weights), downloaded or from the hub's cache.

    A process sees one state of a repository, whatever is pushed meanwhile, until its files are evicted.
    Raises ModelRefused (weights_unavailable, model_too_large, invalid_model_config).
    """
    with _lock:
        whole, weights = _seen.get(repository, ({}, Path()))
        if not weights.is_file():
            whole, weights = _seen[repository] = _fetched(repository, limits)
        (_folder_of(repository) / _USED).touch()
    # The path lies below the commit that it belongs to.
    return whole, Checkpoint(str(weights), lambda: nullcontext(weights))


def _fetched(repository: str, limits: HubLimits) -> tuple[dict[str, Any], Path]:
    try:
        said, weights = _files(repository, limits)
    except ModelRefused:
        raise
    except Exception as error:  # the hub client's and each transport's own exceptions share no base
        raise ModelRefused(
            "weights_unavailable",
            f"{repository} could not be read from the Hugging Face hub: is there a network, and is it a public "
            "repository with an `open_clip_config.json` and weights?",
            "architecture",
        ) from error
    try:
        config = json.loads(said.read_text(encoding="utf-8"))
        whole = {name: config[name] for name in ("model_cfg", "preprocess_cfg") if name in config}
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelRefused(
            "invalid_model_config", f"{repository}: its `open_clip_config.json` is no JSON object", "architecture"
        ) from error
    if "model_cfg" not in whole:
        raise ModelRefused(
            "invalid_model_config", f"{repository}: its `open_clip_config.json` holds no `model_cfg`", "architecture"
        )
    return whole, weights


def _files(repository: str, limits: HubLimits) -> tuple[Path, Path]:
    """Configuration and weights on this disk: of the hub's newest commit, or, without a network, of the cache's."""
    try:
        state = HfApi().model_info(repository, files_metadata=True)
    except Exception:  # noqa: BLE001  as above; whether there is anything in the cache decides
        cached = [_cached(repository, name) for name in _WEIGHTS]
        return _cached(repository, HF_CONFIG_NAME) or Path(), next(path for path in cached if path)
    sizes = {file.rfilename: file.size for file in state.siblings or []}
    weights = next(name for name in _WEIGHTS if name in sizes)
    missing = [name for name in (HF_CONFIG_NAME, weights) if _cached(repository, name, state.sha) is None]
    for name, most in ((HF_CONFIG_NAME, _MOST_CONFIG), (weights, limits.model_bytes)):
        size = sizes[name]
        if size is None or size > most:
            raise ModelRefused(
                "model_too_large",
                f"{name} of {repository} has {size if size is not None else 'an unknown number of'} bytes; "
                f"{most} is the most (ECIF_HUB_MODEL_BYTES)",
                "architecture",
            )
    if missing:
        _make_room(repository, sum(sizes[name] or 0 for name in missing), limits.cache_bytes)
        _folder_of(repository).mkdir(parents=True, exist_ok=True)
        (_folder_of(repository) / _USED).touch()  # before the first byte: what a crash leaves is counted, too
    config, model = (Path(hf_hub_download(repository, name, revision=state.sha)) for name in (HF_CONFIG_NAME, weights))
    return config, model


def _cached(repository: str, name: str, revision: str | None = None) -> Path | None:
    try:
        return Path(hf_hub_download(repository, name, revision=revision, local_files_only=True))
    except Exception:  # noqa: BLE001  as above
        return None


def _make_room(repository: str, needed: int, most: int) -> None:
    """Delete what was used longest ago until `needed` more bytes fit. Only what came this way is counted and deleted:
    the cache may be that of a user who has other models in it.

    Raises ModelRefused (weights_unavailable): the rest is in use.
    """
    by_last_use = sorted((used.stat().st_mtime, used.parent) for used in _cache().glob(f"models--*/{_USED}"))
    held = {folder: _size_of(folder) for _, folder in by_last_use}
    for last_use, folder in by_last_use:
        if sum(held.values()) + needed <= most:
            return
        if folder != _folder_of(repository) and time.time() - last_use > _BUSY_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
            del held[folder]
    if sum(held.values()) + needed > most:
        raise ModelRefused(
            "weights_unavailable",
            f"there is no room for {needed} bytes of {repository} beside the models of the hub that are in use; "
            f"{most} bytes is the most for all (ECIF_HUB_CACHE_BYTES): try again later",
            "architecture",
        )


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / "blobs").glob("*"))


def _folder_of(repository: str) -> Path:
    return _cache() / f"models--{repository.replace('/', '--')}"


def _cache() -> Path:
    return Path(constants.HF_HUB_CACHE)
