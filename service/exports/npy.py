"""Exports as a DataComp subset: the uids of the pairs, sorted, as a numpy array of two halves each."""

import io
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import IO

from sqlalchemy.orm import Session

from service.exports.source import Source
from store import exports
from store.errors import ConflictError

_CHUNK = 1 << 20


def npy_chunks(source: Source) -> Iterator[bytes]:
    """`dtype="u8,u8"`: the upper and the lower 64 bits of each uid, ascending, as DataComp's resharder reads it.

    Raises:
        ConflictError: a pair has no uid.
    """
    source.of_a_dataset("npy")
    # The order is not that of any index, so the database sorts, and the file waits here: 16 bytes a pair.
    file = TemporaryFile()  # noqa: SIM115  closed by the last chunk
    try:
        with source.database.transaction() as session:
            _write(file, session, source)
    except BaseException:
        file.close()
        raise
    file.seek(0)

    def chunks() -> Iterator[bytes]:
        with file:
            while chunk := file.read(_CHUNK):
                yield chunk

    return chunks()


def _write(file: IO[bytes], session: Session, source: Source) -> None:
    import numpy as np  # here, because nobody else should wait for it

    total = _count(session, source)
    dtype = np.dtype("u8,u8")
    header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype)) | {"shape": (total,)}
    np.lib.format.write_array_header_1_0(file, header)
    start = file.tell()
    for uids in exports.uids(session, source.job, source.dataset, flagged=source.flagged):
        file.write(np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids], dtype).tobytes())
    if file.seek(0, io.SEEK_END) - start != total * dtype.itemsize:
        raise ConflictError("job_deleted", f"job {source.job_id} was deleted meanwhile")


def _count(session: Session, source: Source) -> int:
    total, known = exports.count_uids(session, source.job, source.dataset, flagged=source.flagged)
    if known < total:
        raise ConflictError(
            "no_uids",
            "npy holds uids as DataComp has them, 32 hex digits in a column `uid` or as the key, and "
            f"{total - known} of {total} pairs have none",
        )
    return total
