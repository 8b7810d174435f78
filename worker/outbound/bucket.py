"""Objects of a bucket, with the credentials of this service's environment, through obstore."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from readers.printable import printable
from store.errors import InvalidError

_PIECE = 1024 * 1024


class Object:
    """An object as a stream; obstore tries again by itself."""

    __slots__ = ("_bucket", "path", "size")  # there may be a million

    def __init__(self, bucket: "Bucket", path: str, size: int) -> None:
        self._bucket, self.path = bucket, path
        self.size: int | None = size

    @property
    def uri(self) -> str:
        return f"{self._bucket.uri}/{quote(self.path)}"

    def __iter__(self) -> Iterator[bytes]:
        if not self.size:  # a folder that was made by hand is listed as an object and is none
            return
        try:
            blob = obstore.get(self._bucket.store, self.path)
        except FileNotFoundError:
            raise self._bucket.lacks(self.path) from None
        for piece in blob.stream(min_chunk_size=_PIECE):
            yield bytes(piece)


class Bucket:
    """A bucket and what it holds."""

    def __init__(self, uri: str) -> None:
        """That of any URI in it."""
        parts = urlsplit(uri)
        self.name, self.uri = parts.netloc, f"{parts.scheme}://{parts.netloc}"
        with self._refusing(""):
            self.store: Any = from_url(self.uri)

    def object(self, uri: str) -> Object:
        """The object of this name.

        Raises:
            InvalidError: there is none, or it is not ours to read.
        """
        path = _path_of(uri)
        with self._refusing(path):
            return Object(self, path, int(obstore.head(self.store, path)["size"]))

    def under(self, uri: str) -> Iterator[Object]:
        """Every object whose name begins with the folder's, in no order.

        Raises:
            InvalidError: it is not ours to list, or holds a name that is no path.
        """
        folder = _path_of(uri).rstrip("/")
        with self._refusing(folder):
            for batch in obstore.list(self.store, prefix=folder):
                for entry in batch:
                    if entry["path"] != folder:
                        yield Object(self, entry["path"], int(entry["size"]))

    def lacks(self, path: str) -> InvalidError:
        return InvalidError("fetch_refused", f"bucket {self.name} holds no {path!r}", "uri")

    @contextmanager
    def _refusing(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self.lacks(path) from None
        except PermissionError:
            raise InvalidError("fetch_refused", f"bucket {self.name} is not ours to read", "uri") from None
        except BaseError as error:
            first = printable(str(error).strip().splitlines()[0], 300)  # may quote a hostile name
            raise InvalidError("fetch_refused", f"bucket {self.name}: {first}", "uri") from None


def _path_of(uri: str) -> str:
    return unquote(urlsplit(uri).path.lstrip("/"))
