"""Make `ecif_client/_sync` of `ecif_client/_async`: the same code without its awaiting."""

import sys
from pathlib import Path

import unasync

_PACKAGE = Path(__file__).parent / "ecif_client"
_NAMES = {
    "_async": "_sync",
    "AsyncClient": "Client",
    "AsyncConnection": "Connection",
    "AsyncPages": "Pages",
    "AsyncRetrying": "Retrying",
    "AsyncSending": "Sending",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "aiter_sse": "iter_sse",
    "aread": "read",
    "blocking_async": "blocking",
    "pause_async": "pause",
}


def make(package: Path = _PACKAGE) -> None:
    """Write the files of `_sync`; `__init__.py` is its own."""
    files = [str(path) for path in sorted((package / "_async").glob("*.py")) if path.name != "__init__.py"]
    unasync.unasync_files(files, [unasync.Rule("/_async/", "/_sync/", _NAMES)])


if __name__ == "__main__":
    sys.exit(make())
