"""The models that open_clip knows by name, readable where torch is not installed.

`open_clip_models.json` is written by `python -m encoders.catalogue`; a test holds it against the installed library.
"""

import difflib
import json
from functools import cache
from importlib.resources import files
from typing import Any, cast

from store.errors import InvalidError


@cache
def _architectures() -> dict[str, dict[str, Any]]:
    content = json.loads((files("store") / "open_clip_models.json").read_text(encoding="utf-8"))
    return cast("dict[str, dict[str, Any]]", content["architectures"])


def check_model(architecture: str, pretrained: str | None) -> None:
    """Raise unless open_clip lists this architecture and, where given, this pretrained tag for it.

    Raises:
        InvalidError: naming the field, with the closest names or the known tags.
    """
    known = _architectures()
    entry = known.get(architecture)
    if entry is None:
        close = difflib.get_close_matches(architecture, known, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InvalidError(
            "unknown_architecture", f"open_clip has no architecture {architecture!r}{hint}", "model.architecture"
        )
    if entry["refused"]:
        raise InvalidError("unsupported_architecture", f"{architecture}: {entry['refused']}", "model.architecture")
    if pretrained is not None and pretrained not in entry["pretrained"]:
        tags = ", ".join(entry["pretrained"]) or "none"
        raise InvalidError(
            "unknown_pretrained",
            f"{architecture} has no pretrained weights {pretrained!r}; known: {tags}; null trains from scratch",
            "model.pretrained",
        )
