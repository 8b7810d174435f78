"""One object of a bucket, with the credentials of this service's environment, through obstore."""

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from store.errors import InvalidError

_PIECE = 1024 * 1024


class Bucket:
    """An object as a stream; obstore tries again by itself."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._path = unquote(parts.path.lstrip("/"))
        try:
            self._store = from_url(f"{parts.scheme}://{parts.netloc}")
            self.size: int | None = int(obstore.head(self._store, self._path)["size"])
        except FileNotFoundError:
            raise InvalidError("fetch_refused", f"bucket {parts.netloc} holds no {self._path!r}", "uri") from None
        except PermissionError:
            raise InvalidError("fetch_refused", f"bucket {parts.netloc} is not ours to read", "uri") from None
        except BaseError as error:
            first = str(error).strip().splitlines()[0][:300]
            raise InvalidError("fetch_refused", f"bucket {parts.netloc}: {first}", "uri") from None

    def __iter__(self) -> Iterator[bytes]:
        for piece in obstore.get(self._store, self._path).stream(min_chunk_size=_PIECE):
            yield bytes(piece)
