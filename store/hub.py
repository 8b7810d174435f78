"""Which repositories of the Hugging Face hub models may be fetched from: asked at the door and again by the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from store import api_keys
from store.catalogue import HUB_PREFIX
from store.errors import InvalidError
from store.open_clip_config import hub_names
from store.settings import Settings


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
