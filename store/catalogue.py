"""The models that may be named: those that open_clip lists, and the repositories of the Hugging Face hub that may be
fetched from. Readable where torch is not installed.

`open_clip_models.json` is written by `python -m encoders.catalogue`; a test holds it against the installed library."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

from sqlalchemy.orm import Session

from store import api_keys
from store.errors import InvalidError
from store.open_clip_config import check_config, hub_names, is_hub_repository, weights_in
from store.settings import GiB, Settings

HUB_PREFIX = "hf-hub:"
"""Before the name of a repository on the Hugging Face hub that holds configuration and weights, as open_clip has it."""

_PARAM = "model.architecture"


@cache
def _catalogue() -> dict[str, Any]:
    content = (files("store") / "open_clip_models.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(content))


@cache
def _timm_models() -> frozenset[str]:
    return frozenset(_catalogue()["timm_models"])


def check_architecture(architecture: str | dict[str, Any], param: str = _PARAM) -> None:
    """Raise unless this is an architecture that can be scored: a name that open_clip lists, or a configuration of one.

    Raises:
        InvalidError: naming the field, with the closest names; `param` names where the architecture was given.
    """
    if isinstance(architecture, str):
        _entry(architecture, param)
        return
    check_config(architecture, param, _catalogue()["refused_fields"], _timm_models())


def loss_of(architecture: str | dict[str, Any]) -> str | None:
    """What models of an architecture that passed its checks are trained with, `softmax` or `sigmoid`; `None` where a
    repository of the hub says it."""
    if isinstance(architecture, str):
        entry = _catalogue()["architectures"].get(architecture)
        return None if entry is None else str(entry["loss"])
    config = architecture.get("model_cfg", architecture)
    return "softmax" if config.get("init_logit_bias") is None else "sigmoid"


def pretrained_tags(name: str) -> list[str]:
    """The pretrained weights that open_clip has of an architecture; none of a name that it does not know."""
    entry = _catalogue()["architectures"].get(name)
    return [] if entry is None else list(entry["pretrained"])


def check_size(architecture: str | dict[str, Any], most_bytes: int, param: str = _PARAM) -> None:
    """Raise if a configuration that passed `check_architecture` describes more than `most_bytes` of float32 weights.

    Raises:
        InvalidError: naming the field, and both sizes.
    """
    if isinstance(architecture, str):
        return
    size = weights_in(architecture) * 4
    if size > most_bytes:
        message = f"it describes about {size / GiB:,.1f} GiB of weights, and there is room for {most_bytes / GiB:,.1f}"
        raise InvalidError("model_too_large", message, param)


def check_model(architecture: str | dict[str, Any], pretrained: str | None) -> None:
    """Raise unless a job may name this architecture and, where given, this pretrained tag for it.

    Raises:
        InvalidError: naming the field, with the closest names or the known tags.
    """
    tags: list[str] = []
    if isinstance(architecture, str) and architecture.startswith(HUB_PREFIX):
        if not is_hub_repository(architecture.removeprefix(HUB_PREFIX)):
            raise InvalidError("unknown_architecture", f"after {HUB_PREFIX} stands organisation/repository", _PARAM)
    elif isinstance(architecture, str):
        tags = _entry(architecture, _PARAM)["pretrained"]
    else:
        check_architecture(architecture)
    if pretrained is not None and pretrained not in tags:
        name = architecture if isinstance(architecture, str) else "a configuration of one's own"
        known = ", ".join(tags) or "none"
        random = "it brings its own" if name.startswith(HUB_PREFIX) else "null trains from scratch"
        raise InvalidError(
            "unknown_pretrained",
            f"{name} has no pretrained weights {pretrained!r}; known: {known}; {random}",
            "model.pretrained",
        )


def _entry(name: str, param: str) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = _catalogue()["architectures"]
    entry = known.get(name)
    if entry is None:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InvalidError("unknown_architecture", f"open_clip has no architecture {name!r}{hint}", param)
    if entry["refused"]:
        raise InvalidError("unsupported_architecture", f"{name}: {entry['refused']}", param)
    return entry


@dataclass(frozen=True)
class HubRules:
    """What `ECIF_HUB_REPOSITORIES` allows: organisations and repositories. Where it is empty: any as long as there are
    no API keys, and none with them."""

    allowed: tuple[str, ...]
    with_keys: bool

    @classmethod
    def of(cls, session: Session, settings: Settings) -> HubRules:
        """The rules of now: the first key may just have been made."""
        return cls(tuple(settings.ecif_hub_repositories.split()), api_keys.any_made(session))

    def check(self, architecture: str | dict[str, Any], param: str) -> None:
        """Raise unless everything that an architecture fetches may be fetched: a repository named by `hf-hub:`, or the
        text tower and the tokenizer of a configuration.

        Raises:
            InvalidError: naming the field and the repository.
        """
        if isinstance(architecture, dict):
            for field, repository in hub_names(architecture):
                self._check_repository(repository, f"{param}.{field}")
        elif architecture.startswith(HUB_PREFIX):
            self._check_repository(architecture.removeprefix(HUB_PREFIX), param)

    def _check_repository(self, repository: str, param: str) -> None:
        if not self.allowed and not self.with_keys:
            return
        if repository not in self.allowed and repository.partition("/")[0] not in self.allowed:
            raise InvalidError(
                "repository_not_allowed",
                f"nothing is fetched from {repository} of the Hugging Face hub here (ECIF_HUB_REPOSITORIES)",
                param,
            )
