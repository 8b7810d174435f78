"""Equality of captions, images and embeddings, in 64 bits: enough to tell apart what meets in one batch."""

import numpy as np
import numpy.typing as npt
import xxhash


def content_hash(content: bytes | memoryview) -> int:
    """A signed 64-bit hash, equal where the content is equal.

    XXH3, not a cryptographic hash: whoever makes two contents of one hash deceives nobody but their own dataset.
    """
    hashed: int = xxhash.xxh3_64_intdigest(content)
    return hashed - (1 << 64) if hashed >> 63 else hashed


def row_hashes(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """`content_hash` of the bytes of each row. (n, E), contiguous → (n,)."""
    found = np.fromiter(map(xxhash.xxh3_64_intdigest, rows), dtype=np.uint64, count=len(rows))
    return found.view(np.int64)
