"""The digest of what comes in pieces, without reading it a second time where that can be had."""

import hashlib
import threading
from collections import OrderedDict

from store.blobs import Blobs
from store.tables import Upload
from store.uploads import blob_of

_MOST = 1000


class RunningDigests:
    """Hashes of uploads that this process has seen from their first byte. A hash cannot be kept in a row: after a
    restart, or where several processes share one upload, there is none, and the bytes are read again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: OrderedDict[str, tuple[int, hashlib._Hash]] = OrderedDict()

    def add(self, upload_id: str, start: int, piece: bytes) -> str | None:
        """Go on at byte `start`; the digest up to the end of the piece, where it is known."""
        with self._lock:
            at, running = self._running.pop(upload_id, (0, hashlib.sha256()))
        if start == 0:
            running = hashlib.sha256()
        elif at != start:
            return None
        running.update(piece)
        with self._lock:
            self._running[upload_id] = start + len(piece), running
            while len(self._running) > _MOST:
                self._running.popitem(last=False)
        return _digest(running)

    def forget(self, upload_id: str) -> None:
        with self._lock:
            self._running.pop(upload_id, None)


def digest_of(blobs: Blobs, upload: Upload) -> str:
    """The digest of a whole upload: as its row knows it, or of its bytes, read now."""
    if upload.digest is not None:
        return upload.digest
    running = hashlib.sha256()
    for chunk in blobs.stream(blob_of(upload)):
        running.update(chunk)
    return _digest(running)


def _digest(running: "hashlib._Hash") -> str:
    return "sha256:" + running.hexdigest()
