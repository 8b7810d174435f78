"""The metadata of datasets and jobs, as requests carry them."""

from collections.abc import Mapping
from typing import Any


def field_of(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """As a field of a body; absent where there are none, so that an upload keeps the key that it had without."""
    return {"metadata": dict(metadata)} if metadata else {}


def filters_of(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """As filters of a listing."""
    return {f"metadata.{key}": value for key, value in (metadata or {}).items()}
