"""Records of embeddings read in place are those that would have been written out."""

import numpy as np
import pytest

from store.blobs import Blobs
from worker.analysis.records import InUpload, PartBlob, RecordTable, pack, pack_rows


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_embeddings_in_place_are_those_written_out(blobs: Blobs, dtype: str) -> None:
    generator = np.random.default_rng(0)
    image, text = (generator.standard_normal((20, 6)).astype(dtype) for _ in range(2))
    blobs.put("upload", b"head" + image.tobytes() + b"gap" + text.tobytes())
    in_upload = InUpload("upload", (4, dtype), (7 + image.nbytes, dtype))
    kept = np.delete(np.arange(20), [3, 4, 11])  # three rows were turned away
    hashes = generator.integers(-9, 9, (2, len(kept)))
    parts = []
    for number, rows in enumerate(np.array_split(np.arange(len(kept)), 3)):
        upload_rows = kept[rows]
        floats = (side[upload_rows].astype(np.float32) for side in (image, text))
        blobs.put(f"written/{number}", pack(hashes[0][rows], hashes[1][rows], *floats))
        blobs.put(f"in_upload/{number}", pack_rows(hashes[0][rows], hashes[1][rows], upload_rows, 6, in_upload))
        parts.append((number, int(rows[0]), len(rows)))
    wanted = generator.permutation(len(kept))
    found = []
    for how in ("written", "in_upload"):
        table = RecordTable(blobs, [PartBlob(f"{how}/{number}", first, count) for number, first, count in parts])
        found.append(table.rows(wanted))
        table.close()
    assert found[0].dtype == found[1].dtype
    assert (found[0] == found[1]).all()


def test_an_upload_that_lost_its_end_is_an_error(blobs: Blobs) -> None:
    blobs.put("upload", bytes(10))
    hashes = np.zeros(1, dtype=np.int64)
    blobs.put("part", pack_rows(hashes, hashes, hashes, 4, InUpload("upload", (0, "<f4"), (0, "<f4"))))
    table = RecordTable(blobs, [PartBlob("part", 0, 1)])
    with pytest.raises(OSError, match="ends too early"):
        table.rows(hashes)
    table.close()
