"""Exports as a DataComp subset: the uids of the pairs, sorted, as a numpy array of two halves each."""

from collections.abc import Iterator
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO

from service.exports.source import Source
from store.errors import ConflictError

_CHUNK = 1 << 16  # uids
_UID_BYTES = 16


def npy_chunks(source: Source) -> Iterator[bytes]:
    """`dtype="u8,u8"`: the upper and the lower 64 bits of each uid, ascending, as DataComp's resharder reads it.

    Raises:
        ConflictError: a pair has no uid, or the job was deleted meanwhile.
    """
    source.of_a_dataset("npy")
    # The order is not that of any index. They wait in a file, 16 bytes a pair, and are sorted there: by the database it
    # would be one statement of any length.
    file = TemporaryFile()  # noqa: SIM115  closed by the last chunk
    try:
        total = _collect(file, source)
    except BaseException:
        file.close()
        raise
    return _sorted_chunks(file, total)


def _collect(file: IO[bytes], source: Source) -> int:
    total = missing = 0
    for uids in source.uids():
        known = [uid for uid in uids if uid is not None]
        total += len(uids)
        missing += len(uids) - len(known)
        file.write(bytes.fromhex("".join(known)))
    if missing:
        raise ConflictError(
            "no_uids",
            "npy holds uids as DataComp has them, 32 hex digits in a column `uid` or as the key, and "
            f"{missing} of {total} pairs have none",
        )
    if total != source.expected:
        raise ConflictError("job_deleted", f"job {source.job_id} was deleted meanwhile")
    file.flush()
    return total


def _sorted_chunks(file: IO[bytes], total: int) -> Iterator[bytes]:
    import numpy as np  # here, because nobody else should wait for it

    with file:
        dtype = np.dtype("u8,u8")
        header = BytesIO()
        described = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype)) | {"shape": (total,)}
        np.lib.format.write_array_header_1_0(header, described)
        yield header.getvalue()
        if not total:
            return
        uids = np.memmap(file, f"S{_UID_BYTES}", "r+", shape=(total,))  # bytes compare as the numbers do
        uids.sort()
        for start in range(0, total, _CHUNK):
            yield uids[start : start + _CHUNK].view(">u8").astype("<u8").tobytes()
