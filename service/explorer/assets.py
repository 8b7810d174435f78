"""The style and the script of the pages: files of this service, each under a name that holds its digest."""

from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Response

from store.errors import NotFoundError

router = APIRouter()

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


def _named(file: str) -> tuple[str, tuple[bytes, str]]:
    content = (files("service.explorer") / "static" / file).read_bytes()
    stem, _, suffix = file.rpartition(".")
    return f"{stem}.{sha256(content).hexdigest()[:16]}.{suffix}", (content, _TYPES[suffix])


_STYLE, _SCRIPT = _named("explorer.css"), _named("explorer.js")
_ASSETS = dict([_STYLE, _SCRIPT])

STYLE, SCRIPT = (f"/assets/{name}" for name in _ASSETS)
"""Where they are; another content is another address, so browsers keep them for ever."""


@router.get("/assets/{name}", include_in_schema=False)
def get_asset(name: str) -> Response:
    """One of them."""
    if name not in _ASSETS:
        raise NotFoundError("asset_not_found", f"there is no {name!r}")
    content, media_type = _ASSETS[name]
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=media_type, headers=headers)
